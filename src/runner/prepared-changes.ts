// Checks what a handler asked for, once it has ended, and replaces it by what will be stored. So a value is refused whatever else its batch
// holds, and what the handler changes in its objects afterwards has no effect. No I/O.
import { assertKeyFits, assertOwned, UnstorableValue } from "../dead-letter/event-failure.ts"
import { isStorable } from "../text/text.ts"
import { relationOf, type Relation } from "../model/columns.ts"
import { keyText } from "../model/fields.ts"
import type { Writable } from "../model/handler.ts"
import type { Table } from "../model/read-model.ts"
import type { CommandCall, Entries, Modification, Row } from "../model/recorder.ts"
import type { Topic } from "../model/topic.ts"
import { hasFold, spansOf, type Window } from "../model/window.ts"
import {
  checkedTimerName,
  type CommandOrigin,
  type CommandSource,
  type PendingCommand,
  preparedCommand,
  type TimerName
} from "./commands.ts"
import { copied } from "./copied.ts"
import { messageFor, type Message, type MessageOptions } from "./segments.ts"
import { assertInstant, keyOnly, preparedRow } from "./stored-values.ts"

/** Where an event lies and its envelope, as far as changes carry them on. */
export interface Origin extends CommandOrigin {
  /** The partition's stream time; undefined while it has none. */
  readonly reached: number | undefined
}
/** What decides which changes an event may ask for. */
export interface PrepareOptions extends MessageOptions {
  /** The projection has one source: no other topic's partitions can write a row that holds the event's key. */
  readonly hasOneSource: boolean
  /** Whether events have the keys that decide their partition. Without them, in the test kit, nobody else writes a row. */
  readonly hasKeys: boolean
  /** Whose commands and timers they are. Undefined: they are refused, because nothing stores them. */
  readonly commands?: CommandSource | undefined
}

/** A row, or the columns of one, as prepared values; `key` is the text of its key. */
export interface PreparedRow {
  readonly key: string
  readonly row: Row
}
/** A modification whose key is prepared. */
export interface PreparedModification extends PreparedRow {
  readonly change: Modification["change"]
}
/** A contribution with the columns of its key and aggregates, and no others. */
export interface PreparedContribution {
  readonly key: string
  readonly contribution: Row
}
/** A log entry's payload, by its kind. */
export interface PreparedPayloads {
  readonly upsert: PreparedRow
  readonly update: PreparedRow
  readonly delete: PreparedRow
  readonly modify: PreparedModification
  readonly add: PreparedContribution
  readonly publish: Message
  readonly send: PendingCommand
  readonly timer: PendingCommand
  readonly cancel: TimerName
}
type WritingKind = Exclude<keyof PreparedPayloads, "send" | "timer" | "cancel">

// Totals of contributions up to these do not overflow within one batch. A larger one must be committed alone: the database then decides
// whether its total overflows, and a batch could hide that by another contribution
const largeCount = 1e12
const largeSum = 1e290
// spans of times between these, and not longer than 10^13 ms, begin where PostgreSQL has instants
const [earliest, latest, longest] = [-2e14, 8.6e15, 1e13]

const kindsOf: Readonly<Record<WritingKind, Writable["kind"]>> = {
  upsert: "table",
  update: "table",
  delete: "table",
  modify: "table",
  add: "window",
  publish: "topic"
}
interface Target {
  readonly target: Writable
  readonly relation: Relation | undefined
  readonly key: Relation | undefined
  /** The event must own the rows: see `KeyNotOwned`. */
  readonly isOwned: boolean
}

/** Prepares the changes of one projection's events. */
export class ChangePreparer {
  private readonly targets: ReadonlyMap<string, Target>
  private readonly options: PrepareOptions
  private isLarge = false

  constructor(writes: ReadonlyArray<Writable>, options: PrepareOptions) {
    this.options = options
    this.targets = new Map(writes.map((target) => [target.name, this.targetOf(target)]))
  }
  private targetOf(target: Writable): Target {
    if (target.kind === "topic") return { target, relation: undefined, key: undefined, isOwned: false }
    const relation = relationOf(target)
    const isOwned = target.kind === "window" && (target.topic !== undefined || hasFold(target))
    return { target, relation, key: keyOnly(relation), isOwned: this.options.hasKeys && isOwned }
  }

  /**
   * Replaces the payloads of a log, from `from` on, by `PreparedPayloads`. Throws why the event cannot be applied. Returns whether the event
   * must be committed alone.
   */
  prepare(log: Entries, from: number, origin: Origin): boolean {
    this.isLarge = false
    for (let i = from; i < log.length; i += 3) {
      const kind = log[i] as keyof PreparedPayloads
      if (kind === "send" || kind === "timer" || kind === "cancel") {
        log[i + 2] = this.command(kind, log[i + 1], log[i + 2], origin, (i - from) / 3)
        continue
      }
      const found = this.find(kind, log[i + 1])
      log[i + 1] = found.target
      log[i + 2] = this.prepared(kind, found, log[i + 2], origin)
    }
    return this.isLarge
  }

  private command(
    kind: "send" | "timer" | "cancel",
    target: unknown,
    given: CommandCall | undefined,
    origin: Origin,
    number: number
  ): PendingCommand | TimerName {
    const where = `out.${kind}`
    const { commands } = this.options
    if (commands === undefined) {
      const reason = "commands and timers are stored behind the log only; run the projection with Projection.async"
      throw new UnstorableValue({ where, reason })
    }
    if (given !== undefined) return preparedCommand(commands, target, given, origin, number)
    return { key: origin.key, name: checkedTimerName(where, (target as { readonly name: unknown }).name) }
  }

  private find(kind: WritingKind, given: Partial<Writable> | null | undefined): Target {
    const found = this.targets.get(given?.name as string)
    if (found !== undefined && found.target.kind === kindsOf[kind]) return found
    const what = found === undefined ? `${kindsOf[kind]} ${String(given?.name)}` : `a ${found.target.kind}`
    const why =
      found === undefined
        ? "which the projection does not write; list it in the projection's `writes`"
        : `${given?.name}, and takes a ${kindsOf[kind]}`
    throw new UnstorableValue({ where: `out.${kind}`, reason: `it was given ${what}, ${why}` })
  }

  private prepared(kind: WritingKind, { isOwned, key, relation, target }: Target, given: unknown, origin: Origin) {
    switch (kind) {
      case "publish":
        return messageFor(target as Topic.Any, given, origin, this.options)
      case "add":
        return this.contribution(target as Window.Any, relation!, given, origin, isOwned)
      case "modify": {
        const { change, key: modified } = given as Modification
        assertRow(target.name, modified)
        if (this.options.hasKeys) assertOwned(target.name, (target as Table.Any).primaryKey, modified, origin.key)
        if ((target as Table.Any).shared || !this.options.hasOneSource) {
          const reason =
            "other projections or sources may write the row too, and `modify` could lose what they wrote; use upsert or a window, or re-key the events of several sources with `Projection.rekey`"
          throw new UnstorableValue({ where: target.name, reason })
        }
        const row = preparedRow(key!, modified)
        assertKeyFits(target.name, key!.key, row)
        return { key: keyText(key!.key, row), row, change } satisfies PreparedModification
      }
      default:
        assertRow(target.name, given)
        return keyed(preparedRow(kind === "delete" ? key! : relation!, given, kind === "update"), relation!, target)
    }
  }

  private contribution(
    window: Window.Any,
    relation: Relation,
    given: unknown,
    origin: Origin,
    isOwned: boolean
  ): PreparedContribution {
    assertRow(window.name, given, window.key)
    const contribution: Row = {}
    for (const column of relation.columns) {
      if (window.keyFields[column.name] !== undefined) contribution[column.name] = given[column.name]
    }
    if (isOwned) assertOwned(window.name, window.key, contribution, origin.key)
    const row = preparedRow(keyColumns(window, relation), contribution)
    assertKeyFits(window.name, relation.key, row)
    for (const column in window.aggregate) {
      const value = contributed(window, column, given[column])
      row[column] = value
      const { sql } = window.aggregate[column]!
      const most = sql === "count" ? largeCount : sql === "sum" ? largeSum : Infinity
      if (typeof value === "number" && Math.abs(value) > most) this.isLarge = true
    }
    assertSpans(window, origin.eventTime)
    return { key: keyText(window.key, row), contribution: row }
  }
}

const keyed = (row: Row, { key }: Relation, { name }: Writable): PreparedRow => {
  assertKeyFits(name, key, row)
  return { key: keyText(key, row), row }
}
const keyRelations = new WeakMap<Window.Any, Relation>()
/** The columns of a window's key, without those of its spans. */
const keyColumns = (window: Window.Any, { columns, name }: Relation): Relation => {
  let found = keyRelations.get(window)
  if (found === undefined) {
    found = { name, key: window.key, columns: columns.filter((column) => window.key.includes(column.name)) }
    keyRelations.set(window, found)
  }
  return found
}

/** Throws `UnstorableValue` for what is no row, and for text that PostgreSQL cannot store; `columns` are those to look at, if not all. */
export function assertRow(where: string, row: unknown, columns?: ReadonlyArray<string>): asserts row is Row {
  if (typeof row !== "object" || row === null)
    throw new UnstorableValue({ where, reason: `${row === null ? "null" : typeof row} is no row; give an object` })
  for (const column of columns ?? Object.keys(row)) {
    const value: unknown = (row as Row)[column]
    if (typeof value !== "string" || isStorable(value)) continue
    throw new UnstorableValue({
      where: `${where}.${column}`,
      reason:
        "the text has a NUL character or half a surrogate pair, which PostgreSQL cannot store; clean or leave it out"
    })
  }
}

/** A contribution to one column. Throws `UnstorableValue` for one that would spoil its total for good. */
const contributed = (window: Window.Any, column: string, value: unknown): unknown => {
  const { sql } = window.aggregate[column]!
  const refuse = (reason: string) => {
    throw new UnstorableValue({ where: window.name, reason: `${column} is ${textOf(value)}; ${reason}` })
  }
  switch (sql) {
    case "fold":
      return copied(value)
    case "count":
      if (typeof value === "boolean") return value
      if (typeof value !== "number" || !Number.isFinite(value)) return refuse("windows add up finite numbers only")
      if (!Number.isSafeInteger(value)) {
        const reason = `${column}: ${value} is not a whole number up to 2^53; count whole numbers, or use Agg.sum`
        throw new UnstorableValue({ where: window.name, reason })
      }
      return value
    default:
      if (typeof value !== "number" || !Number.isFinite(value)) return refuse("windows add up finite numbers only")
      // zero has one sign: which of two is smaller would depend on what compares them
      return value === 0 ? 0 : value
  }
}
const textOf = (value: unknown): string =>
  typeof value === "number" || typeof value === "boolean" || value == null ? String(value) : `a ${typeof value}`

/** Throws `Unstorable` if a span that contains the time begins where PostgreSQL has no instants. */
const assertSpans = ({ shape }: Window.Any, time: number): void => {
  if (shape.type === "global") return
  const isShort = shape.type !== "fixed" || shape.spans.every(({ sizeMs }) => sizeMs <= longest)
  if (isShort && time > earliest && time < latest) return
  for (const { start } of spansOf(shape, time)) assertInstant(start)
}
