// Sums up one vitest report: prints "passed failed skipped", and a line for each failed test. A test file that did not even load counts as one failed.
import { readFileSync } from "node:fs"
import { relative } from "node:path"

const report = JSON.parse(readFileSync(process.argv[2], "utf8"))
const unloaded = report.testResults.filter(
  (file) => file.status === "failed" && !file.assertionResults.some((each) => each.status === "failed")
)
const skipped = report.numPendingTests + report.numTodoTests
console.log(report.numPassedTests, report.numFailedTests + unloaded.length, skipped)

/** The first line of what failed. */
const reasonOf = (text = "") => text.split("\n", 1)[0].slice(0, 300)
for (const { assertionResults, message, name } of report.testResults.filter(({ status }) => status === "failed")) {
  const file = relative(process.cwd(), name)
  const tests = assertionResults.filter(({ status }) => status === "failed")
  for (const { failureMessages, fullName } of tests)
    console.log(`  failed: ${file} > ${fullName}: ${reasonOf(failureMessages[0])}`)
  if (tests.length === 0) console.log(`  failed: ${file}: ${reasonOf(message)}`)
}
