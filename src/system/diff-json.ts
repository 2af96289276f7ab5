// The difference of two builds as JSON. Pure.
import type { ComparedValue, Differences, DifferenceSample } from "../postgres/store/compare.ts"
import { jsonOf } from "../text/json-values.ts"
import type { Diff } from "./diff.ts"

const rowJson = (values: ReadonlyArray<ComparedValue> | undefined): string =>
  values === undefined
    ? "null"
    : `{${values.map(({ column, text }) => `${JSON.stringify(column.name)}:${jsonOf(column, text)}`).join()}}`
const sampleJson = ({ candidate, key, kind, live }: DifferenceSample): string =>
  `{"kind":"${kind}","key":${rowJson(key)},"live":${rowJson(live)},"candidate":${rowJson(candidate)}}`
/** An object with the counts, more fields, and the samples, whose values JSON.stringify would round. */
const differencesJson = (
  { changed, extra, missing, rounding, rows, samples }: Differences,
  more: object = {}
): string =>
  `${JSON.stringify({ missing, extra, changed, rounding, rows, ...more }).slice(0, -1)},"samples":[${samples.map(sampleJson).join()}]}`

/** The difference as one JSON object. Values of samples are as `millrace sql --format json` prints them. */
export const diffJson = (found: Diff): string => {
  const { candidate, deadLetters, equal, frozenMs, late, live, lookupDeadLetters, lookups, messages = null } = found
  const { projection, tables } = found
  const tablesJson = tables.map((table) => {
    const { name, notCompared = null, onlyCandidate, onlyIn = null, onlyLive, retyped } = table
    const json = differencesJson(table, { notCompared, onlyIn, onlyLive, onlyCandidate, retyped })
    return `{"name":${JSON.stringify(name)},${json.slice(1)}`
  })
  const head = JSON.stringify({ projection, live, candidate }).slice(0, -1)
  return `${head},"tables":[${tablesJson.join()}],"late":${differencesJson(late)},"deadLetters":${differencesJson(deadLetters)},"lookupDeadLetters":${JSON.stringify(lookupDeadLetters)},"messages":${JSON.stringify(messages)},"lookups":${JSON.stringify(lookups)},"frozenMs":${Math.round(frozenMs)},"equal":${equal}}`
}
