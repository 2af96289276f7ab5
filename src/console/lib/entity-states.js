// What the rows of a key were after each of its events, from the history that the server computed. Pure.
import { eventId, rowId } from "./entity.js"
import { counted } from "./format.js"

/** The rows of a history with their states by the ids of events, and the events: `{ rows, events }`. */
export const historyOf = (found, views) => {
  const rows = []
  const events = []
  for (const one of found?.projections ?? []) {
    if (one.problem !== null) continue
    const own = one.rows.map((row) => {
      const view = views.find(({ name }) => name === row.table)
      const id = view === undefined ? `${row.table} ${JSON.stringify(row.key)}` : rowId(view, row.key)
      return Object.assign({ states: new Map(), view, projection: one.projection }, row, { id })
    })
    for (const event of one.events) {
      events.push(event)
      for (const { row, value } of event.changes) own[row].states.set(eventId(event), value)
    }
    rows.push(...own)
  }
  return { rows, events }
}
/** What became of events, by their ids: what is no plain success. */
export const outcomesOf = ({ events }) =>
  new Map(
    events
      .filter(({ outcome }) => outcome !== "applied" && outcome !== "without_effect")
      .map((event) => [eventId(event), event.outcome])
  )

/** What a row was after the event at `index` of the ids of a timeline: `{ value, before, isChanged, changedAt }`. */
const stateAt = (row, ids, index) => {
  let value = row.before
  let before = row.before
  let changedAt = -1
  for (let i = 0; i <= index; i++) {
    if (!row.states.has(ids[i])) continue
    before = value
    value = row.states.get(ids[i])
    changedAt = i
  }
  const isChanged = changedAt === index && index >= 0
  return { value, before: isChanged ? before : value, isChanged, changedAt }
}
const isThere = (value) => value !== null && value !== undefined
const noteOf = (row) => {
  if (row.same === false) return "A replay gives another row, so its past is not shown."
  return row.other_keys > 0 ? `Events of other keys wrote it, too: ${counted(row.other_keys, "time")}.` : undefined
}
const stateOf = (row, ids, index, now) => {
  const isNow = now !== undefined
  const note = noteOf(row)
  const known =
    row.same === false ? { value: null, before: null, isChanged: false, changedAt: -1 } : stateAt(row, ids, index)
  return Object.assign(known, { row, view: row.view, note }, isNow && { value: now })
}

/**
 * The tables with their rows after an event: `[{ title, view, rows, error, isCut }]`, what changed last first. `read`: the rows of all views as they are
 * now, which are shown where the event is the last one.
 */
export const tablesAt = ({ history, ids, index, read = [] }) => {
  const isNow = index === ids.length - 1
  const current = new Map(read.flatMap(({ rows, view }) => rows.map((one) => [one.id, Object.assign({ view }, one)])))
  const tables = new Map()
  const table = (title, view) => {
    if (!tables.has(title)) tables.set(title, { title, view, rows: [], isCut: false })
    return tables.get(title)
  }
  for (const row of history.rows) {
    const state = stateOf(row, ids, index, isNow ? (current.get(row.id)?.row ?? row.stored) : undefined)
    // one that is not there is shown where the event deleted it
    if (isThere(state.value) || state.isChanged) table(row.table, row.view).rows.push(state)
  }
  const known = new Set(history.rows.map(({ id }) => id))
  const only = [...current.values()].filter(({ id }) => !known.has(id))
  if (isNow)
    for (const { id, row, view } of only)
      table(view.name, view).rows.push({ row: { id }, view, value: row, before: row, isChanged: false, changedAt: -1 })
  for (const { error, isCut, view } of read) {
    if (error !== undefined) table(view.name, view).error = error
    if (isCut && isNow && tables.has(view.name)) tables.get(view.name).isCut = true
  }
  return {
    tables: [...tables.values()].map((one) =>
      Object.assign(one, { rows: one.rows.toSorted((a, b) => b.changedAt - a.changedAt) })
    ),
    withoutPast: [...new Set(only.map(({ view }) => view.name))]
  }
}

/** What cannot be known of the past, in sentences. `withoutPast`: tables with rows that no history has. */
export const unknownOf = (found, withoutPast) => {
  if (found === undefined) return []
  const notes = []
  for (const { complete, notes: own, omitted, problem, projection, rows } of found.projections) {
    if (problem !== null) {
      notes.push(`${projection}: ${problem}.`)
      continue
    }
    for (const note of own) notes.push(`${projection}: ${note}.`)
    if (omitted > 0)
      notes.push(
        `${projection}: ${counted(omitted, "earlier event")} of the key changed rows before the first one here.`
      )
    const different = rows.filter(({ same }) => same === false).length
    if (different > 0)
      notes.push(
        `${projection}: of ${counted(different, "row")} a replay gives other values than the database has. The code or a lookup changed since, or somebody changed the row by hand.`
      )
    if (!complete && rows.length > 0)
      notes.push(
        `${projection}: only the partitions of this key were replayed. If events of keys in other partitions write the same rows, they are missing.`
      )
  }
  if (withoutPast.length > 0) notes.push(`${withoutPast.join(", ")}: of some rows only what is there now is known.`)
  return notes
}
