// The difference of two builds as text for people.
import type { ComparedValue, Differences, DifferenceSample } from "../postgres/store/compare.ts"
import type { Diff, TableDiff } from "../system/diff.ts"
import { tableOf } from "./tables.ts"

/** A longer value of a sample is cut off in the text, which JSON does not. */
const mostCharacters = 200

const cut = (text: string) =>
  text.length > mostCharacters ? `${text.slice(0, mostCharacters)}… (${text.length} characters)` : text
const shown = ({ column, text }: ComparedValue): string =>
  text === null ? "null" : /^(text|character|name|citext)/.test(column.type) ? cut(JSON.stringify(text)) : cut(text)
const pairs = (values: ReadonlyArray<ComparedValue>) =>
  values.map((value) => `${value.column.name} ${shown(value)}`).join(", ")

const sampleText = ({ candidate, key, kind, live }: DifferenceSample): string => {
  const of = pairs(key)
  const only = pairs((kind === "missing" ? live : candidate) ?? [])
  if (kind === "missing" || kind === "extra") return `  ${kind}: ${of}${only === "" ? "" : `: ${only}`}`
  const changes = live!.map((value, i) => `${value.column.name} ${shown(value)} → ${shown(candidate![i]!)}`)
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
    ...(tables.some(({ changed, extra, missing }) => changed + extra + missing > 0)
      ? [
          "rows that events of several partitions write may differ by the order between the partitions, which a replay does not repeat"
        ]
      : []),
    equal ? "equal" : "different"
  ].join("\n")
}
