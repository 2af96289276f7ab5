// What belongs to one key: its events in all topics, its rows in all tables and views, and what its rows were after each event.
import { get, withQuery } from "./api.js"
import { recordsPath } from "./records.js"
import { isTime } from "./types.js"

/** How many events of a topic, and rows of a view, are read at once. */
const most = { events: 100, rows: 20 }
const encode = encodeURIComponent

/** The events of an aggregate's stream before a version. */
const readStream = async ({ name }, key, before) => {
  const from = Math.max(1, before - most.events)
  const path = `/v1/aggregates/${encode(name)}/${encode(key)}/events`
  const { events } = await get(withQuery(path, { from: String(from), limit: String(before - from) }))
  return {
    topic: name,
    isDone: from === 1,
    next: { version: from },
    searched: 0,
    events: events.map(({ event, ...rest }) =>
      Object.assign(rest, { topic: name, key, value: event, type: event.type })
    )
  }
}
/** The newest records of a key in a topic, or those before a position. */
const readRecords = async ({ name }, key, before) => {
  const path = recordsPath(name, {
    key: [key],
    order: "desc",
    from: before === undefined ? undefined : String(before),
    limit: String(most.events)
  })
  const { next, partition, records, searched, start } = await get(path)
  return {
    topic: name,
    partition,
    isDone: next <= start,
    next,
    searched: searched.to - searched.from,
    events: records.map((record) =>
      Object.assign(record, {
        topic: name,
        type: typeof record.value?.type === "string" ? record.value.type : undefined
      })
    )
  }
}
/**
 * The newest events of a key in a topic, or those before `next` of what was read of it. Those of an aggregate's stream have an index by their versions, once
 * one of them is found.
 */
export const readTopic = async (topic, key, before) => {
  if (before?.version !== undefined) return readStream(topic, key, before.version)
  const found = await readRecords(topic, key, before)
  const version = Number(found.events[0]?.headers?.["millrace-version"])
  return topic.aggregate && version >= 1 ? readStream(topic, key, version + 1) : found
}

/** Keys of the newest records of a topic, from so many partitions as it takes to find some. */
export const newestKeys = async ({ name }) => {
  const keys = new Set()
  for (let partition = 0, partitions = 1; partition < Math.min(partitions, 16) && keys.size < 20; partition++) {
    const page = await get(recordsPath(name, { partition: String(partition), order: "desc", limit: "50" }))
    partitions = page.partitions
    for (const { key } of page.records) if (key !== null) keys.add(key)
  }
  return [...keys].slice(0, 20)
}

/** The id of an event. */
export const eventId = ({ partition, position, topic }) => `${topic}/${partition}/${position}`
/** Events of several topics in one order: by when the log stored them, those of a partition by position. */
export const inOrder = (events) =>
  [...new Map(events.map((event) => [eventId(event), event])).values()].toSorted((a, b) =>
    a.topic === b.topic && a.partition === b.partition
      ? a.position - b.position
      : (a.appended_at ?? 0) - (b.appended_at ?? 0) || (a.topic < b.topic ? -1 : 1)
  )

/** A value of a key as text, so that keys of different routes are equal: times as epoch milliseconds. */
const keyPart = (value, type) => (isTime(type) && typeof value === "string" ? String(Date.parse(value)) : String(value))
/** The id of a row: its table and key. */
export const rowId = (view, row) =>
  JSON.stringify([
    view.name,
    ...(view.key.length === 0 ? Object.keys(row) : view.key).map((name) =>
      keyPart(row[name], view.columns.find((column) => column.name === name)?.type ?? "")
    )
  ])

/**
 * The columns by which a view's rows may belong to a key: those of its primary key that can hold a text, and those that are called as the key of a topic
 * is.
 */
const columnsFor = (view, keyFields, key) =>
  view.columns
    .filter(({ name, type }) => {
      if (!view.key.includes(name) && !keyFields.has(name)) return false
      return type === "text" || (/^(bigint|integer|smallint)$/.test(type) && /^-?\d{1,15}$/.test(key))
    })
    .filter(({ name }) => !["window_size", "tenant"].includes(name))
    .map(({ name }) => name)

/** The rows of a view that belong to a key: `{ view, rows, isCut, error }`. */
const readView = async (view, columns, key) => {
  const found = new Map()
  let isCut = false
  try {
    for (const column of columns) {
      const order = view.columns.some(({ name }) => name === "window_start") ? "window_start.desc" : undefined
      const { next, rows } = await get(
        withQuery(`/v1/views/${encode(view.name)}`, { [column]: [key], limit: String(most.rows), order })
      )
      isCut ||= next !== null
      for (const row of rows) found.set(rowId(view, row), row)
    }
    return { view, columns, rows: [...found].map(([id, row]) => ({ id, row })), isCut }
  } catch (error) {
    return { view, columns, rows: [], isCut: false, error }
  }
}
/** The rows of all views, a few views at once. */
export const readViews = async (views, keyFields, key) => {
  const wanted = views
    .map((view) => ({ view, columns: columnsFor(view, keyFields, key) }))
    .filter(({ columns }) => columns.length > 0)
  const found = []
  for (let i = 0; i < wanted.length; i += 4)
    found.push(...(await Promise.all(wanted.slice(i, i + 4).map(({ columns, view }) => readView(view, columns, key)))))
  return found
}
