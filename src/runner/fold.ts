// Folds what handlers asked for into one batch's changes: one entry a row, one delta a window's row, one segment a topic. No I/O.
import { UnstorableValue } from "../dead-letter/event-failure.ts"
import { fromRow, relationOf, type Column } from "../model/columns.ts"
import { keyText } from "../model/fields.ts"
import { partitionOf } from "../model/partitioner.ts"
import { syncResult } from "../model/user-code.ts"
import { BatchCommands, type CommandChanges } from "./commands.ts"
import { copied } from "./copied.ts"
import { assertRow } from "./prepared-changes.ts"
import type {
  Origin,
  PreparedContribution,
  PreparedModification,
  PreparedPayloads,
  PreparedRow
} from "./prepared-changes.ts"
import { BatchMessages, messageKey, type Message, type MessageOptions } from "./segments.ts"
import { assertNotNull, preparedRow, preparedValue, readRow, readValue } from "./stored-values.ts"
import type { Table } from "../model/read-model.ts"
import type { Entries, Row } from "../model/recorder.ts"
import type { LateEvent, Segment, TableChange, WindowChange, WindowDelta } from "./store.ts"
import type { Topic } from "../model/topic.ts"
import { type ChangedRow, withTimes } from "./window-times.ts"
import { hasFold, isClosed, isNamedTopic, spansOf, type Span, type Window } from "../model/window.ts"

/** What the batch does with a table's row, all events so far taken together. */
type RowChange =
  | { readonly kind: "upsert"; readonly row: Row }
  | { readonly kind: "update"; readonly row: Row }
  | { readonly kind: "delete"; readonly row: Row }
interface RowDelta {
  /** The prepared values; in a window with a fold, first those that were read. */
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
    Pick<Window.Any["aggregate"][string], "add" | "initial"> & { readonly column: string; readonly stored: Column }
  >
  readonly fold: boolean
  /** The topic that the window publishes to, if it was declared with a key of its own. */
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

/** Returns a row that was read because `neededRows` named it, as its columns hold it; undefined if there is no such row. */
export type ReadRow = (target: Table.Any | Window.Any, keyText: string) => Row | undefined

/** Whether one event's changes, from `from` on, need rows to be read: see `neededRows`. */
export const readsRows = (log: Entries, from: number): boolean => {
  for (let i = from; i < log.length; i += 3) {
    if (log[i] === "modify" || (log[i] === "add" && hasFold(log[i + 1] as Window.Any))) return true
  }
  return false
}

/** The rows that one event's prepared changes, from `from` to `to` of the log, need: those of `modify`, and of windows with a fold. */
export const neededRows = (log: Entries, from: number, to: number, origin: Origin): ReadonlyArray<NeededRow> => {
  const found: Array<NeededRow> = []
  for (let i = from; i < to; i += 3) {
    const target = log[i + 1] as Table.Any | Window.Any
    if (log[i] === "modify") found.push({ target, key: (log[i + 2] as PreparedModification).row })
    else if (log[i] === "add" && hasFold(target as Window.Any)) {
      const window = target as Window.Any
      const { contribution } = log[i + 2] as PreparedContribution
      for (const span of spansOf(window.shape, origin.eventTime))
        found.push({ target, key: { ...pick(window.key, contribution), ...spanColumns(window, span) } })
    }
  }
  return found
}

/** The columns of a window's row that name its span. */
export const spanColumns = (window: Window.Any, span: Span): Row =>
  window.shape.type === "global" ? {} : { window_size: span.label, window_start: span.start }
/** The columns of a window's primary key. */
export const windowKey = (window: Window.Any): ReadonlyArray<string> =>
  window.shape.type === "global" ? window.key : [...window.key, "window_size", "window_start"]
const pick = (columns: ReadonlyArray<string>, row: Row): Row =>
  Object.fromEntries(columns.map((column) => [column, row[column]]))
/** One batch's changes while they grow. `apply` takes an event whole or, by throwing, not at all. */
export class BatchFold {
  readonly late: Array<LateEvent> = []
  private readonly tables = new Map<Table.Any, Map<string, RowChange>>()
  private readonly windows = new Map<Window.Any, WindowDeltas>()
  private readonly published: BatchMessages
  private readonly sent = new BatchCommands()
  private readonly options: MessageOptions

  constructor(options: MessageOptions) {
    this.options = options
    this.published = new BatchMessages(options)
  }

  /** Folds one event's prepared changes in. Throws why the event cannot be applied; it has then changed nothing. */
  apply(log: Entries, from: number, to: number, origin: Origin, read: ReadRow): void {
    let risky = false
    for (let i = from; i < to; i += 3)
      risky ||= log[i] === "modify" || (log[i] === "add" && callsUser(this.deltasOf(log[i + 1])))
    // nothing but a user's function can fail from here on
    const undo: Undo | undefined = risky ? [] : undefined
    try {
      for (let i = from; i < to; i += 3) {
        const kind = log[i] as keyof PreparedPayloads
        if (kind === "add") this.contribute(log[i + 1], log[i + 2], origin, read, undo)
        else if (kind === "modify") this.modify(log[i + 1], log[i + 2], read, undo)
        else if (kind === "upsert" || kind === "update" || kind === "delete")
          this.write(kind, log[i + 1], log[i + 2], undo)
      }
    } catch (error) {
      for (const step of undo?.toReversed() ?? []) step()
      throw error
    }
    for (let i = from; i < to; i += 3) {
      const kind = log[i] as keyof PreparedPayloads
      if (kind === "publish") this.published.add(log[i + 2] as Message)
      else if (kind === "send" || kind === "timer" || kind === "cancel") this.sent.add(log[i + 2])
    }
  }

  private changesOf(table: Table.Any): Map<string, RowChange> {
    let changes = this.tables.get(table)
    if (changes === undefined) this.tables.set(table, (changes = new Map()))
    return changes
  }
  private write(
    kind: "upsert" | "update" | "delete",
    table: Table.Any,
    { key, row }: PreparedRow,
    undo: Undo | undefined
  ) {
    const rows = this.changesOf(table)
    const before = rows.get(key)
    undo?.push(() => (before === undefined ? rows.delete(key) : rows.set(key, before)))
    if (kind !== "update" || before === undefined) rows.set(key, { kind, row })
    else if (before.kind !== "delete") rows.set(key, { kind: before.kind, row: { ...before.row, ...row } })
  }
  private modify(
    table: Table.Any,
    { change, key, row: keyRow }: PreparedModification,
    read: ReadRow,
    undo: Undo | undefined
  ) {
    const relation = relationOf(table)
    const before = this.changesOf(table).get(key)
    const found = before === undefined || before.kind === "update" ? read(table, key) : undefined
    const stored = found && fromRow(relation, copied(found))
    // each change sees the row as it would be read after a commit, so that it does not matter whether there was one
    const row =
      before === undefined || (before.kind === "update" && stored === undefined)
        ? stored
        : before.kind === "delete"
          ? undefined
          : readRow(relation, before.row, stored)
    const next = syncResult(`the function of \`modify\` of ${table.name}`, change(row))
    if (next === undefined) return this.write("delete", table, { key, row: keyRow }, undo)
    if (next === null) {
      const reason = "`modify` returned null; return the row, or undefined to delete it"
      throw new UnstorableValue({ where: table.name, reason })
    }
    assertRow(table.name, next)
    const changed = preparedRow(relation, next)
    const changedKey = keyText(relation.key, changed)
    if (changedKey !== key) {
      const reason = `\`modify\` of the row with the key ${key} returned a row with the key ${changedKey}; keep the key, or delete and upsert`
      throw new UnstorableValue({ where: table.name, reason })
    }
    this.write("upsert", table, { key, row: changed }, undo)
  }

  private contribute(
    window: Window.Any,
    { contribution, key }: PreparedContribution,
    origin: Origin,
    read: ReadRow,
    undo: Undo | undefined
  ) {
    if (undo !== undefined) {
      const late = this.late.length
      undo.push(() => (this.late.length = late))
    }
    const deltas = this.deltasOf(window)
    const { eventTime } = origin
    if (!(eventTime >= deltas.from && eventTime < deltas.to)) setSpans(deltas, eventTime)
    const { spans } = deltas
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
      if (deltas.fold) addToFold(deltas, row, contribution)
      else for (const { add, column } of deltas.columns) row[column] = add(row[column], contribution[column] as never)
      delta.origin = origin
      if (deltas.declaredTopic !== undefined)
        delta.key ??= messageKey(deltas.declaredTopic, pick(windowKey(window), row))
    }
  }

  private deltasOf(window: Window.Any): WindowDeltas {
    let deltas = this.windows.get(window)
    if (deltas === undefined) {
      const { columns: all } = relationOf(window)
      const columns = Object.entries(window.aggregate).map(([column, { add, initial }]) => ({
        column,
        add,
        initial,
        stored: all.find(({ name }) => name === column)!
      }))
      const none = { byLabel: new Map(), spans: [], rows: [], from: Infinity, to: -Infinity }
      const declaredTopic = window.topic !== undefined && isNamedTopic(window.topic) ? undefined : window.topic
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
    const { isMuted = false, times } = this.options
    const changes: Array<WindowChange> = []
    const published: Array<ChangedRow> = []
    for (const { byLabel, window } of this.windows.values()) {
      const { topic } = window
      const deltas: Array<WindowDelta> = []
      for (const byStart of byLabel.values()) {
        for (const byKey of byStart.values()) {
          for (const row of byKey.values()) {
            const delta = this.toPublish(window, row)
            deltas.push(delta)
            if (times !== undefined && topic !== undefined && !isMuted)
              published.push({ topic, delta, event: row.origin })
          }
        }
      }
      if (deltas.length > 0) changes.push({ window, deltas, ...(isMuted && { isMuted }) })
    }
    const sorted = changes.toSorted((a, b) => (a.window.name < b.window.name ? -1 : 1))
    return times === undefined || published.length === 0 ? sorted : withTimes(sorted, published, times)
  }

  private toPublish(window: Window.Any, { key: given, origin, row }: RowDelta): WindowDelta {
    const { eventTime, tenant, traceparent } = origin
    const { isMuted, sourcePartitions } = this.options
    if (window.topic === undefined || isMuted) return { row, key: "", partition: 0, eventTime, tenant, traceparent }
    const key = given ?? window.topic.keyOf(row)
    const partition = partitionOf(key, window.topic.partitions ?? sourcePartitions)
    return { row, key, partition, eventTime, tenant, traceparent }
  }

  /** The commands and timers that handlers asked for; undefined if there are none, or if they are muted. */
  commands(): CommandChanges | undefined {
    return this.options.isMuted === true ? undefined : this.sent.changes()
  }
  /** How many messages the handlers published, by topic. */
  messageCounts(): Readonly<Record<string, number>> {
    return this.published.counts()
  }
  /** What the handlers published, one segment a topic; nothing if it is muted. */
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
    const found = fold ? read(window, keyText(windowKey(window), row)) : undefined
    const values = found && fromRow(relationOf(window), copied(found))
    for (const { column, initial } of columns) row[column] = values === undefined ? initial : values[column]
    byKey.set(key, (delta = { row, origin }))
    undo?.push(() => byKey.delete(key))
  }
  return delta
}

/**
 * Adds a contribution to the row of a window with a fold. The user's functions get copies, as they would be read after a commit: so it does
 * not matter whether there was one, and what such a function changes in place before it throws is not kept.
 */
const addToFold = ({ columns, window }: WindowDeltas, row: Row, contribution: Row) => {
  const next: Row = {}
  for (const { add, column, stored } of columns) {
    const state = add(copied(readValue(stored, row[column])), contribution[column] as never)
    next[column] = preparedValue(stored, syncResult(`${window.name}: the fold of ${column}`, state))
  }
  assertNotNull(relationOf(window), next)
  Object.assign(row, next)
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
