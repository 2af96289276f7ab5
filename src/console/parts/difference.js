// What differs between two builds: counts by table, and samples side by side with the paths that differ marked.
import { counted, number } from "../lib/format.js"
import { html } from "../lib/html.js"
import { isNested, same } from "../lib/json.js"
import { FieldValue, Table, Tag } from "./common.js"

/** The leaves of a value by their paths. */
const leavesOf = (value, path = "", found = new Map()) => {
  if (!isNested(value)) return found.set(path, value)
  const entries = Object.entries(value)
  if (entries.length === 0 && path !== "") found.set(path, value)
  for (const [name, one] of entries) leavesOf(one, path === "" ? name : `${path}.${name}`, found)
  return found
}
/** The paths of two values, with whether they differ there. */
export const pathsOf = (live, candidate) => {
  const [before, after] = [leavesOf(live ?? {}), leavesOf(candidate ?? {})]
  return [...new Set([...before.keys(), ...after.keys()])].map((path) => ({
    path,
    live: before.get(path),
    candidate: after.get(path),
    differs: !before.has(path) || !after.has(path) || !same(before.get(path), after.get(path))
  }))
}
const labels = {
  missing: "only in the live build",
  extra: "only in the candidate",
  changed: "has other values",
  rounding: "differs by rounding"
}
const Sample = ({ sample: { candidate, key, kind, live } }) =>
  html`<div class="nested">
    <p>
      <${Tag} kind=${kind === "rounding" ? "quiet" : "warn"}>${labels[kind]}<//> <code>${JSON.stringify(key)}</code>
    </p>
    <${Table}
      caption=${`A row: ${labels[kind]}`}
      rows=${pathsOf(live, candidate)}
      keyOf=${({ path }) => path}
      columns=${[
        {
          name: "path",
          label: "column",
          cell: ({ differs, path }) => (differs ? html`<strong>${path} ≠</strong>` : path)
        },
        ...["live", "candidate"].map((name) => ({
          name,
          cell: (row) =>
            html`<span class=${row.differs ? "differs" : ""}
              >${row[name] === undefined ? "–" : html`<${FieldValue} isWhole name=${row.path} value=${row[name]} />`}</span
            >`
        }))
      ]}
    />
  </div>`

const notes = ({ notCompared, onlyCandidate, onlyIn, onlyLive, retyped }) =>
  [
    notCompared && `not compared: ${notCompared}`,
    onlyIn && `only in the ${onlyIn} build`,
    onlyLive.length > 0 && `columns of the live build alone: ${onlyLive.join(", ")}`,
    onlyCandidate.length > 0 && `columns of the candidate alone: ${onlyCandidate.join(", ")}`,
    retyped.length > 0 && `other types: ${retyped.map((one) => JSON.stringify(one)).join(", ")}`
  ].filter(Boolean)
const counts = ["missing", "extra", "changed", "rounding"]

/** A difference between two builds, as the route answers it. */
export const Difference = ({ found }) => {
  const others = [
    { name: "late events", ...found.late, onlyLive: [], onlyCandidate: [], retyped: [] },
    { name: "dead letters", ...found.deadLetters, onlyLive: [], onlyCandidate: [], retyped: [] }
  ]
  const lookupLetters = found.lookupDeadLetters
  const withSamples = [...found.tables, ...others].filter(({ samples = [] }) => samples.length > 0)
  return html`<p>
      ${
        found.equal
          ? html`<${Tag} kind="good">equal<//> Build ${found.candidate} has the same rows as build ${found.live}.`
          : html`<${Tag} kind="warn">different<//> Build ${found.candidate} differs from build ${found.live}.`
      }
    </p>
    <${Table}
      caption="Differences by table"
      rows=${[...found.tables, ...others]}
      keyOf=${({ name }) => name}
      columns=${[
        {
          name: "name",
          label: "table",
          cell: (row) =>
            html`${row.name} ${notes(row).map((text) => html`<br key=${text} /><small class="quiet">${text}</small>`)}`
        },
        { name: "live", label: "rows, live", numeric: true, cell: ({ rows }) => number(rows.live) },
        { name: "candidate", label: "rows, candidate", numeric: true, cell: ({ rows }) => number(rows.candidate) },
        ...counts.map((name) => ({
          name,
          numeric: true,
          cell: (row) => (row[name] > 0 ? html`<strong>${number(row[name])}</strong>` : "0")
        }))
      ]}
    />
    ${
      found.messages?.length > 0 &&
      html`<${Table}
        caption="Messages by topic"
        rows=${found.messages}
        columns=${[{ name: "topic", label: "messages to" }, ...["live", "candidate"].map((name) => ({ name, numeric: true, cell: (row) => number(row[name]) }))]}
      />`
    }
    ${
      lookupLetters.live + lookupLetters.candidate > 0 &&
      html`<p class="quiet">
        ${`Dead letters of lookup topics: ${number(lookupLetters.live)} in build ${found.live}, ${number(lookupLetters.candidate)} in build ${found.candidate}; not compared.`}
      </p>`
    }
    ${found.lookups.length > 0 && html`<p class="quiet">Lookups differ: ${found.lookups.join(", ")}</p>`}
    ${withSamples.map(
      ({ name, samples }) =>
        html`<h3 key=${name}>${name}: ${counted(samples.length, "sample")}</h3>
          ${samples.map((sample, i) => html`<${Sample} key=${i} sample=${sample} />`)}`
    )}
    <p class="quiet">Both stood still for ${number(found.frozenMs)} ms.</p>`
}
