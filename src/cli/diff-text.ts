// The difference of two builds as text for people.
import type { ComparedValue, Differences, DifferenceSample } from "../postgres/store/compare.ts"
import type { Diff, TableDiff } from "../system/diff.ts"
import { jsonDifferences } from "../text/json-difference.ts"
import { tableOf } from "./tables.ts"

/** A longer value of a sample is cut off in the text, which JSON does not. */
const mostCharacters = 200

const cut = (text: string) =>
  text.length > mostCharacters ? `${text.slice(0, mostCharacters)}… (${text.length} characters)` : text
const shown = ({ column, text }: ComparedValue): string =>
  text === null ? "null" : /^(text|character|name|citext)/.test(column.type) ? cut(JSON.stringify(text)) : cut(text)
/** From a little before the first difference on, if a value is long. */
const fromDifference = (text: string, at: number) => {
  const begin = Math.max(0, at - mostCharacters / 4)
  return text.length <= mostCharacters ? text : `${begin > 0 ? "…" : ""}${cut(text.slice(begin))}`
}
const firstDifference = (a: string, b: string): number => {
  let at = 0
  while (at < a.length && a[at] === b[at]) at++
  return at
}
/** How many paths of a JSON value are named. */
const mostPaths = 5
/** The paths at which two JSON values differ; undefined if they differ in the digits of a number alone, or are no JSON. */
const pathsOf = (live: string, candidate: string): ReadonlyArray<string> | undefined => {
  try {
    const found = [...jsonDifferences(JSON.parse(live), JSON.parse(candidate))]
    if (found.length === 0 || found[0]!.path === "") return undefined
    const texts = found.slice(0, mostPaths).map(({ a = "missing", b = "missing", path }) => {
      const at = firstDifference(a, b)
      return `${path.replace(/^\./, "")} ${fromDifference(a, at)} → ${fromDifference(b, at)}`
    })
    return found.length > mostPaths ? [...texts, `and at ${found.length - mostPaths} more paths`] : texts
  } catch {
    return undefined
  }
}
/** How a value changed: of JSON, where. */
const changeText = (live: ComparedValue, candidate: ComparedValue): string => {
  const { name, type } = live.column
  if (live.text === null || candidate.text === null) return `${name} ${shown(live)} → ${shown(candidate)}`
  const paths = /^jsonb?$/.test(type) ? pathsOf(live.text, candidate.text) : undefined
  if (paths !== undefined) return `${name}: ${paths.join("; ")}`
  const at = firstDifference(live.text, candidate.text)
  if (at === 0 || Math.max(live.text.length, candidate.text.length) <= mostCharacters)
    return `${name} ${shown(live)} → ${shown(candidate)}`
  return `${name} differs from character ${at + 1} on: ${fromDifference(live.text, at)} → ${fromDifference(candidate.text, at)}`
}
const pairs = (values: ReadonlyArray<ComparedValue>) =>
  values.map((value) => `${value.column.name} ${shown(value)}`).join(", ")

const sampleText = ({ candidate, key, kind, live }: DifferenceSample): string => {
  const of = pairs(key)
  const only = pairs((kind === "missing" ? live : candidate) ?? [])
  if (kind === "missing" || kind === "extra") return `  ${kind}: ${of}${only === "" ? "" : `: ${only}`}`
  const changes = live!.map((value, i) => changeText(value, candidate![i]!))
  return `  ${kind}: ${of}: ${changes.join(", ")}`
}
const countsOf = ({ changed, extra, missing, rounding, rows }: Differences) =>
  [rows.live, rows.candidate, missing, extra, changed, rounding].map(String)

const notesOf = ({ name, notCompared, onlyCandidate, onlyLive, retyped }: TableDiff): ReadonlyArray<string> => [
  ...(notCompared === undefined ? [] : [`${name} is not compared: ${notCompared}`]),
  ...(onlyLive.length === 0 ? [] : [`${name}: only the live build has ${onlyLive.join(", ")}; not compared`]),
  ...(onlyCandidate.length === 0 ? [] : [`${name}: only the candidate has ${onlyCandidate.join(", ")}; not compared`]),
  ...retyped.map(
    ({ candidate, live, name: column }) =>
      `${name}: ${column} has the type ${live} in the live build and ${candidate} in the candidate; not compared`
  )
]

/** The difference for people: a line for each read model, late events and dead letters, then samples, columns that were not compared, and a conclusion. */
export const diffText = (found: Diff): string => {
  const { candidate, deadLetters, equal, frozenMs, late, live, lookupDeadLetters, lookups, messages } = found
  const { projection, tables } = found
  const byOrder = tables.flatMap(({ changed, extra, isByOrder, missing, name }) =>
    isByOrder && changed + extra + missing > 0 ? [name] : []
  )
  const parts: ReadonlyArray<readonly [name: string, of: Differences]> = [
    ...tables.map((table) => [table.name, table] as const),
    ["late events", late],
    ["dead letters", deadLetters]
  ]
  const isCompared = (of: Differences) => !("notCompared" in of) || of.notCompared === undefined
  const head = ["", `rows in ${live}`, `rows in ${candidate}`, "missing", "extra", "changed", "rounding"]
  const samples = parts.flatMap(([name, of]) =>
    of.samples.length === 0 ? [] : [`${name}:`, ...of.samples.map(sampleText)]
  )
  const frozen = frozenMs === 0 ? "" : `, which was frozen for ${Math.round(frozenMs)} ms`
  return [
    `${projection}: build ${candidate} compared with the live build ${live}${frozen}`,
    tableOf(
      head,
      parts.map(([name, of]) => [name].concat(isCompared(of) ? countsOf(of) : ["not compared"]))
    ),
    ...samples,
    ...tables.flatMap(notesOf),
    ...(lookupDeadLetters.live === 0 && lookupDeadLetters.candidate === 0
      ? []
      : [
          `dead letters of lookup topics: ${lookupDeadLetters.live} in ${live}, ${lookupDeadLetters.candidate} in ${candidate}; not compared`
        ]),
    ...(messages?.map(
      (one) =>
        `messages of handlers to ${one.topic}: ${one.live} by build ${live}, ${one.candidate} by build ${candidate}`
    ) ?? ["messages of handlers: not known, because a build began before they were counted, or at another position"]),
    ...lookups,
    ...(byOrder.length === 0
      ? []
      : [
          `rows of ${byOrder.join(", ")} that events of several partitions write may differ by the order between the partitions, which a replay does not repeat`
        ]),
    equal ? "equal" : "different"
  ].join("\n")
}
