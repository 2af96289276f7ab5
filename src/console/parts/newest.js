// The newest records of a topic as they are made: those that the log has, and then what a stream brings.
import { get, withQuery } from "../lib/api.js"
import { html, useEffect, useState } from "../lib/html.js"
import { isNested } from "../lib/json.js"
import { newestOf } from "../lib/records.js"
import { linkTo } from "../lib/router.js"
import { follow } from "../lib/stream.js"
import { isMoment, time } from "../lib/format.js"
import { isTime } from "../lib/types.js"
import { Empty, Problem, Table, Time, Value } from "./common.js"

/** How many records and columns are shown, and of how many partitions the last records are read at first. */
const most = { shown: 8, partitions: 32, columns: 4 }

/** The last records of a topic, the newest first. */
const lastOf = async ({ name, partitions }) => {
  const some = partitions
    .filter(({ end, start }) => end > start)
    .toSorted((a, b) => b.end - a.end)
    .slice(0, most.partitions)
  const pages = await Promise.all(
    some.map(({ partition }) => newestOf(name, { partition: String(partition), limit: String(most.shown) }))
  )
  return pages
    .flatMap(({ partition, records }) =>
      records.map(({ appended_at: at, position, value }) => ({ id: `${partition}@${position}`, at, value }))
    )
    .toSorted((a, b) => b.at - a.at)
    .slice(0, most.shown)
}

/** A value of a field: a time, or what it is. */
const Field = ({ name, value }) =>
  isMoment(name, value) ? html`<${Time} at=${value} />` : html`<${Value} value=${value} />`
/** The fields of the newest records that have one value, in the order of the newest record. */
const fieldsOf = (records) => {
  const names = Object.entries(records[0].value ?? {}).flatMap(([name, value]) => (isNested(value) ? [] : [name]))
  // an id says little to a person; an entity, an amount and a time do
  const isId = (name) => /^(event_|alert_|trace_|message_)?id$/.test(name)
  return [...names.filter((name) => !isId(name)), ...names.filter(isId)].slice(0, most.columns)
}

/** The newest rows of the table that has the records of a topic, by its first column of a time. */
const rowsOf = async ({ columns, name }) => {
  const at = columns.find(({ type }) => isTime(type))?.name
  if (at === undefined) return []
  const { rows } = await get(
    withQuery(`/v1/views/${encodeURIComponent(name)}`, { order: `${at}.desc`, limit: most.shown })
  )
  return rows.map((value) => ({ id: JSON.stringify(value), value }))
}

/** The newest records: those that the log or the table has, and then what the stream brings. */
const useNewest = ({ name, view }) => {
  const [records, setRecords] = useState()
  const [error, setError] = useState()
  useEffect(() => {
    let isGone = false
    // a record may be read from the log or the table, and come by the stream, too
    const textOf = ({ value }) => JSON.stringify(view === undefined ? value : view.key.map((one) => value?.[one]))
    const merged = (newer, older) => {
      const known = new Set(newer.map(textOf))
      return [...newer, ...older.filter((one) => !known.has(textOf(one)))].slice(0, most.shown)
    }
    // once the stream is open, so that no record is made between the two; the ends are read again for the same reason
    const readLast = async () => {
      const rows = view === undefined ? [] : await rowsOf(view).catch(() => [])
      const add = (found) => isGone || setRecords((old = []) => merged(old, found))
      if (rows.length > 0) return add(rows)
      const { topics } = await get("/v1/operations/topics")
      add(await lastOf(topics.find((one) => one.name === name) ?? { name, partitions: [] }))
    }
    const stop = follow(`/v1/topics/${encodeURIComponent(name)}/stream`, {
      everyMs: 500,
      newest: most.shown,
      onState: ({ error: problem, state }) => {
        setError(problem?.status > 0 ? problem : undefined)
        if (state === "open") readLast().catch(() => undefined)
      },
      onEvents: (events) => {
        const found = events
          .filter(({ event }) => event !== "end")
          .map(({ data, id }) => ({ id, at: Date.now(), value: data, isFresh: true }))
        setRecords((old = []) => merged(found.toReversed(), old))
      }
    })
    return () => {
      isGone = true
      stop()
    }
  }, [name])
  return { error, records }
}

/** The newest records of a topic, which appear as they are made. `view` is the table that has them, if there is one. */
export const Newest = (of) => {
  const { name } = of
  const { error, records } = useNewest(of)
  const shown = records?.filter(({ value }) => value !== null && typeof value === "object") ?? []
  return html`<section class="card" aria-label=${`Newest of ${name}`}>
    <div class="row spread">
      <h2>Newest of ${name}</h2>
      <a href=${linkTo("live", { topic: name })}>All as they are made</a>
    </div>
    <${Problem} error=${error} />
    ${
      records === undefined
        ? html`<p class="quiet" role="status">Loading…</p>`
        : shown.length === 0
          ? html`<${Empty} title="None yet"><p>Records appear here as they are made.</p><//>`
          : html`<${Table}
              caption=${`Newest records of ${name}`}
              rows=${shown}
              keyOf=${({ id }) => id}
              rowClass=${({ isFresh }) => (isFresh ? "fresh" : "")}
              columns=${[
                {
                  name: "millrace came",
                  label: "came",
                  cell: ({ at }) =>
                    at === undefined
                      ? html`<span class="quiet">earlier</span>`
                      : html`<time title=${time(at)}>${time(at).slice(11, 19)}</time>`
                },
                ...fieldsOf(shown).map((field) => ({
                  name: field,
                  numeric: shown.every(
                    ({ value }) => typeof value[field] === "number" && !isMoment(field, value[field])
                  ),
                  cell: ({ value }) => html`<${Field} name=${field} value=${value[field]} />`
                }))
              ]}
            />`
    }
  </section>`
}
