// Folds what handlers asked for into one batch's changes: one entry a row, one delta a window's row, one segment a topic. No I/O.
import { assertOwned, isStorable, UnstorableValue } from "../dead-letter/event-failure.ts"
import { keyText } from "../model/fields.ts"
import type { Meta } from "../model/handler.ts"
import { partitionOf } from "../model/partitioner.ts"
import { copied } from "./copied.ts"
import { BatchMessages, messageKey, type Message } from "./segments.ts"
import type { Table } from "../model/read-model.ts"
import type { Entries, Modification, Payload, Row } from "../model/recorder.ts"
import type { LateEvent, Segment, TableChange, WindowChange, WindowDelta } from "./store.ts"
import type { Topic } from "../model/topic.ts"
import { hasFold, isClosed, spansOf, type Span, type Window } from "../model/window.ts"

/** Where an event lies and its envelope, as far as changes carry them on. */
export interface Origin extends Meta {
  readonly traceparent: string | undefined
}
/** What the batch does with a table's row, all events so far taken together. */
type RowChange =
  | { readonly kind: "upsert"; readonly row: Row }
  | { readonly kind: "update"; readonly row: Row }
  | { readonly kind: "delete"; readonly row: Row }
interface RowDelta {
  readonly row: Row
  origin: Origin
  /** The key of its message, if the window's topic computes that by a function of its own. */
  key?: string
}
/** What undoes one event's changes, to be called from the last to the first. */
type Undo = Array<() => void>
/** A window's rows of a batch, by label, start and key. */
interface WindowDeltas {
  readonly window: Window.Any
  readonly columns: ReadonlyArray<
    Pick<Window.Any["aggregate"][string], "add" | "initial"> & { readonly column: string }
  >
  readonly fold: boolean
  /** The topic that the window publishes to, if it was declared with a key and fields of its own. */
  readonly declaredTopic: Topic.Any | undefined
  readonly byLabel: Map<string | undefined, Map<number, Map<string, RowDelta>>>
  /** The spans of the last event; they are the same for all times from `from` until before `to`. */
  spans: ReadonlyArray<Span>
  /** The rows of each of these spans, by key. */
  rows: Array<Map<string, RowDelta> | undefined>
  from: number
  to: number
}
/** A row that must be read before its event can be applied. */
export interface NeededRow {
  readonly target: Table.Any | Window.Any
  readonly key: Row
}

/** Returns a row that was read because `neededRows` named it; undefined if there is no such row. */
export type ReadRow = (target: Table.Any | Window.Any, keyText: string) => Row | undefined

/** Whether one event's changes, from `from` on, need rows to be read: see `neededRows`. */
export const readsRows = (log: Entries, from: number): boolean => {
  for (let i = from; i < log.length; i += 3) {
    if (log[i] === "modify" || (log[i] === "add" && hasFold(log[i + 1] as Window.Any))) return true
  }
  return false
}

/** The rows that one event's changes, from `from` to `to` of a recorder's log, need: those of `modify`, and of windows with a fold. */
export const neededRows = (log: Entries, from: number, to: number, origin: Origin): ReadonlyArray<NeededRow> => {
  const found: Array<NeededRow> = []
  for (let i = from; i < to; i += 3) {
    const target = log[i + 1] as Table.Any | Window.Any
    if (log[i] === "modify") {
      const key = pick((target as Table.Any).primaryKey, (log[i + 2] as Modification).key)
      if (isReadable(key)) found.push({ target, key })
    } else if (log[i] === "add" && hasFold(target as Window.Any)) {
      const window = target as Window.Any
      for (const span of spansOf(window.shape, origin.eventTime)) {
        const key = { ...pick(window.key, log[i + 2]), ...spanColumns(window, span) }
        if (isReadable(key)) found.push({ target, key })
      }
    }
  }
  return found
}

/** Whether a row can be read by the key. An event with another key is refused later, alone; the read is shared by all events. */
const isReadable = (key: Row): boolean =>
  Object.values(key).every((value) => value != null && (typeof value !== "string" || isStorable(value)))

/** The columns of a window's row that name its span. */
export const spanColumns = (window: Window.Any, span: Span): Row =>
  window.shape.type === "global" ? {} : { window_size: span.label, window_start: span.start }
/** The columns of a window's primary key. */
export const windowKey = (window: Window.Any): ReadonlyArray<string> =>
  window.shape.type === "global" ? window.key : [...window.key, "window_size", "window_start"]
const pick = (columns: ReadonlyArray<string>, row: Row): Row =>
  Object.fromEntries(columns.map((column) => [column, row[column]]))
/** Throws `UnstorableValue` for text that PostgreSQL cannot store. */
const assertStorable = (where: string, row: Row) => {
  for (const column in row) assertStorableValue(where, column, row[column])
}
const assertStorableValue = (where: string, column: string, value: unknown) => {
  if (typeof value !== "string" || isStorable(value)) return
  throw new UnstorableValue({
    where: `${where}.${column}`,
    reason:
      "the text has a NUL character or half a surrogate pair, which PostgreSQL cannot store; clean or leave it out"
  })
}
/** Throws `UnstorableValue` for a contribution that would make its total NaN or infinite for good. */
const assertCountable = (window: Window.Any, contribution: Row) => {
  for (const column in window.aggregate) {
    const value = contribution[column]
    if (Number.isFinite(value) || typeof value === "boolean" || window.aggregate[column]!.sql === "fold") continue
    const reason = `${column} is ${value}; windows add up finite numbers only`
    throw new UnstorableValue({ where: window.name, reason })
  }
}

/** How a batch is folded. */
export interface FoldOptions {
  /** The partitions of a derived topic that does not declare how many it has. */
  readonly sourcePartitions: number
  /** The projection has one source: no other topic's partitions can write a row that holds the event's key. */
  readonly hasOneSource: boolean
  /** Events have keys, which decide their partition. An aggregate's events have none, and one writer owns all rows. */
  readonly hasKeys: boolean
}

/** One batch's changes while they grow. `apply` takes an event whole or, by throwing, not at all. */
export class BatchFold {
  readonly late: Array<LateEvent> = []
  private readonly tables = new Map<Table.Any, Map<string, RowChange>>()
  private readonly windows = new Map<Window.Any, WindowDeltas>()
  private readonly published: BatchMessages
  private readonly options: FoldOptions

  constructor(options: FoldOptions) {
    this.options = options
    this.published = new BatchMessages(options.sourcePartitions)
  }

  /** Folds one event's recorded changes in. Throws why the event cannot be applied; it has then changed nothing. */
  apply(log: Entries, from: number, to: number, origin: Origin, read: ReadRow): void {
    const messages: Array<Message> = []
    let risky = false
    for (let i = from; i < to; i += 3) {
      this.check(log[i], log[i + 1], log[i + 2], origin, messages)
      risky ||= log[i] === "modify" || (log[i] === "add" && callsUser(this.deltasOf(log[i + 1])))
    }
    // nothing but a user's function can fail from here on
    const undo: Undo | undefined = risky ? [] : undefined
    try {
      for (let i = from; i < to; i += 3) {
        if (log[i] === "add") this.contribute(log[i + 1], log[i + 2], origin, read, undo)
        else if (log[i] !== "publish") this.write(log[i], log[i + 1], log[i + 2], read, undo)
      }
    } catch (error) {
      for (const step of undo?.toReversed() ?? []) step()
      throw error
    }
    for (const message of messages) this.published.add(message)
  }

  private check(
    kind: string,
    target: Table.Any | Window.Any | Topic.Any,
    payload: Payload,
    origin: Origin,
    messages: Array<Message>
  ) {
    switch (kind) {
      case "publish":
        messages.push(this.published.message(target as Topic.Any, payload, origin))
        return
      case "add": {
        const window = target as Window.Any
        for (const column of window.key) assertStorableValue(window.name, column, payload[column])
        assertCountable(window, payload)
        if (this.options.hasKeys && (window.topic !== undefined || this.deltasOf(window).fold))
          assertOwned(window.name, window.key, payload, origin.key)
        return
      }
      case "modify":
        assertStorable(target.name, payload.key)
        if (this.options.hasKeys) assertOwned(target.name, (target as Table.Any).primaryKey, payload.key, origin.key)
        if ((target as Table.Any).shared || !this.options.hasOneSource) {
          const reason =
            "other projections or sources may write the row too, and `modify` could lose what they wrote; use upsert, or a window"
          throw new UnstorableValue({ where: target.name, reason })
        }
        return
      default:
        assertStorable(target.name, payload)
    }
  }

  private write(
    kind: "upsert" | "update" | "delete" | "modify",
    table: Table.Any,
    payload: Payload,
    read: ReadRow,
    undo: Undo | undefined
  ) {
    let ops = this.tables.get(table)
    if (ops === undefined) this.tables.set(table, (ops = new Map()))
    const key = keyText(table.primaryKey, kind === "modify" ? payload.key : payload)
    const before = ops.get(key)
    const rows = ops
    undo?.push(() => (before === undefined ? rows.delete(key) : rows.set(key, before)))
    if (kind === "upsert") ops.set(key, { kind, row: payload })
    else if (kind === "delete") ops.set(key, { kind, row: payload })
    else if (kind === "update") {
      if (before === undefined) ops.set(key, { kind, row: payload })
      else if (before.kind !== "delete") ops.set(key, { kind: before.kind, row: { ...before.row, ...payload } })
    } else {
      const stored = before?.kind === "upsert" ? before.row : before?.kind === "delete" ? undefined : read(table, key)
      const row = stored && before?.kind === "update" ? { ...stored, ...before.row } : stored
      const next = (payload as Modification).change(copied(row))
      if (next === undefined) ops.set(key, { kind: "delete", row: payload.key })
      else if (next === null) {
        const reason = "`modify` returned null; return the row, or undefined to delete it"
        throw new UnstorableValue({ where: table.name, reason })
      } else {
        assertStorable(table.name, next)
        ops.set(key, { kind: "upsert", row: next })
      }
    }
  }

  private contribute(window: Window.Any, contribution: Row, origin: Origin, read: ReadRow, undo: Undo | undefined) {
    if (undo !== undefined) {
      const late = this.late.length
      undo.push(() => (this.late.length = late))
    }
    const deltas = this.deltasOf(window)
    const { eventTime } = origin
    if (!(eventTime >= deltas.from && eventTime < deltas.to)) setSpans(deltas, eventTime)
    const key = keyText(window.key, contribution)
    const { columns, spans } = deltas
    for (let i = 0; i < spans.length; i++) {
      const span = spans[i]!
      if (isClosed(window, span.end, origin.streamTime)) {
        this.late.push(lateOf(window, span, contribution, origin))
        continue
      }
      const delta = deltaOf(deltas, i, key, contribution, origin, read, undo)
      const { row } = delta
      if (undo !== undefined) {
        const before = { row: { ...row }, origin: delta.origin }
        undo.push(() => (Object.assign(row, before.row), (delta.origin = before.origin)))
      }
      for (let c = 0; c < columns.length; c++) {
        const { add, column } = columns[c]!
        row[column] = add(row[column], contribution[column] as never)
      }
      delta.origin = origin
      if (deltas.declaredTopic !== undefined) delta.key ??= messageKey(deltas.declaredTopic, row)
    }
  }

  private deltasOf(window: Window.Any): WindowDeltas {
    let deltas = this.windows.get(window)
    if (deltas === undefined) {
      const columns = Object.entries(window.aggregate).map(([column, { add, initial }]) => ({ column, add, initial }))
      const none = { byLabel: new Map(), spans: [], rows: [], from: Infinity, to: -Infinity }
      const declaredTopic = window.topic?.fields === undefined ? undefined : window.topic
      deltas = { window, columns, fold: hasFold(window), declaredTopic, ...none }
      this.windows.set(window, deltas)
    }
    return deltas
  }

  /** What the batch changes in tables, in order of their names, so that every commit locks them in the same order. */
  tableChanges(): ReadonlyArray<TableChange> {
    const changes: Array<TableChange> = []
    for (const [table, ops] of this.tables) {
      const rows = { upsert: [] as Array<Row>, update: [] as Array<Row>, delete: [] as Array<Row> }
      for (const { kind, row } of ops.values()) rows[kind].push(row)
      changes.push({ table, upserts: rows.upsert, updates: rows.update, deletes: rows.delete })
    }
    return changes.toSorted((a, b) => (a.table.name < b.table.name ? -1 : 1))
  }

  /** What the batch contributes to windows, in order of their names. */
  windowChanges(): ReadonlyArray<WindowChange> {
    const changes: Array<WindowChange> = []
    for (const { byLabel, window } of this.windows.values()) {
      const deltas: Array<WindowDelta> = []
      for (const byStart of byLabel.values()) {
        for (const byKey of byStart.values())
          for (const delta of byKey.values()) deltas.push(this.toPublish(window, delta))
      }
      if (deltas.length > 0) changes.push({ window, deltas })
    }
    return changes.toSorted((a, b) => (a.window.name < b.window.name ? -1 : 1))
  }

  private toPublish(window: Window.Any, { key: given, origin, row }: RowDelta): WindowDelta {
    const { eventTime, tenant, traceparent } = origin
    if (window.topic === undefined) return { row, key: "", partition: 0, eventTime, tenant, traceparent }
    const key = given ?? window.topic.keyOf(row)
    const partition = partitionOf(key, window.topic.partitions ?? this.options.sourcePartitions)
    return { row, key, partition, eventTime, tenant, traceparent }
  }

  /** What the handlers published, one segment a topic. */
  segments(): ReadonlyArray<Segment> {
    return this.published.segments()
  }
}

/** Whether adding to the window calls a user's function, which may throw. */
const callsUser = ({ declaredTopic, fold }: WindowDeltas) => fold || declaredTopic !== undefined
/** Sets the spans of a time. Those of tumbling and calendar windows stay the same until the first of them ends; others are computed for each event. */
const setSpans = (deltas: WindowDeltas, time: number) => {
  const { shape } = deltas.window
  deltas.spans = spansOf(shape, time)
  deltas.rows = []
  const sideBySide =
    shape.type === "calendar" ||
    (shape.type === "fixed" && shape.spans.every(({ everyMs, sizeMs }) => everyMs === sizeMs))
  deltas.from = sideBySide ? Math.max(...deltas.spans.map(({ start }) => start)) : Infinity
  deltas.to = sideBySide ? Math.min(...deltas.spans.map(({ end }) => end)) : -Infinity
}
const inserted = <K, V>(map: Map<K, V>, key: K, make: () => V): V => {
  let value = map.get(key)
  if (value === undefined) map.set(key, (value = make()))
  return value
}
/** The row of a key and one of the last event's spans: the batch's, or a new one, which begins as it was read if the window has a fold. */
const deltaOf = (
  { byLabel, columns, fold, rows, spans, window }: WindowDeltas,
  at: number,
  key: string,
  contribution: Row,
  origin: Origin,
  read: ReadRow,
  undo: Undo | undefined
): RowDelta => {
  const span = spans[at]!
  const byKey = (rows[at] ??= inserted(
    inserted(byLabel, span.label, () => new Map<number, Map<string, RowDelta>>()),
    span.start,
    () => new Map<string, RowDelta>()
  ))
  let delta = byKey.get(key)
  if (delta === undefined) {
    const row: Row = {}
    for (const column of window.key) row[column] = contribution[column]
    if (window.shape.type !== "global") {
      row["window_size"] = span.label
      row["window_start"] = span.start
    }
    const stored = fold ? read(window, keyText(windowKey(window), row)) : undefined
    for (const { column, initial } of columns) row[column] = copied(stored ? stored[column] : initial)
    byKey.set(key, (delta = { row, origin }))
    undo?.push(() => byKey.delete(key))
  }
  return delta
}

const lateOf = (window: Window.Any, span: Span, contribution: Row, origin: Origin): LateEvent => ({
  position: origin.position,
  window: window.name,
  size: span.label ?? "",
  start: span.start,
  key: pick(window.key, contribution),
  contribution: pick(Object.keys(window.aggregate), contribution),
  eventTime: origin.eventTime,
  streamTime: origin.streamTime,
  traceId: origin.traceId
})
