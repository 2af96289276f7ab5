// Records how long test files take, so that the longest start first: node scripts/durations.mjs REPORT, a report of `npm test -- --reporter=json`.
import { readFileSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"

const least = 5
const tests = join(import.meta.dirname, "..", "test")
const { testResults } = JSON.parse(readFileSync(process.argv[2], "utf8"))
const durations = testResults
  .map(({ endTime, name, startTime }) => [relative(tests, name), Math.round((endTime - startTime) / 1000)])
  .filter(([, seconds]) => seconds >= least)
  .toSorted(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))
writeFileSync(join(tests, "durations.json"), `${JSON.stringify(Object.fromEntries(durations), undefined, 2)}\n`)
