// Sums up one vitest report: prints "passed failed skipped". A test file that did not even load counts as one failed.
import { readFileSync } from "node:fs"

const report = JSON.parse(readFileSync(process.argv[2], "utf8"))
const unloaded = report.testResults.filter(
  (file) => file.status === "failed" && !file.assertionResults.some((each) => each.status === "failed")
)
const skipped = report.numPendingTests + report.numTodoTests
console.log(report.numPassedTests, report.numFailedTests + unloaded.length, skipped)
