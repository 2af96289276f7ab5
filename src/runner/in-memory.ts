// Runs a projection over arrays of events, in memory: what the test kit and `Projection.live` use, and the runner's model.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type { DeadLetterMessage } from "../model/dead-letter-topic.ts"
import { assertOwned, describeError } from "../dead-letter/event-failure.ts"
import { keyText, type Named } from "../model/fields.ts"
import type { Meta, Writable } from "../model/handler.ts"
import { partitionOf } from "../model/partitioner.ts"
import type { Projection } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import { Recorder, type Modification, type Row } from "../model/recorder.ts"
import type { Source, Topic } from "../model/topic.ts"
import { hasFold, isClosed, spansOf, type Span, type Window } from "../model/window.ts"

interface Open {
  row: Row
  readonly end: number
  dirty: boolean
}
/** What a driver published: a topic's name, and a record as the relay would send it. */
export interface Published {
  readonly topic: string
  readonly key: string
  readonly partition: number
  readonly value: Row
}

const columnsOf = (window: Window.Any, span: Span): Row => {
  switch (window.shape.type) {
    case "global":
      return {}
    case "session":
      return { window_start: span.start, window_end: span.end }
    default:
      return { window_size: span.label, window_start: span.start }
  }
}

/** An in-memory projection: feed it batches, look at its rows. A failed event leaves no changes behind. */
export class Driver<Ev, E, R> {
  readonly published: Array<Published> = []
  readonly late: Array<Row> = []
  /** Events that failed, where they are parked and not thrown: what their dead letters say of them. */
  readonly dead: Array<Partial<DeadLetterMessage>> = []
  /** The clock that handlers see and that events without a time of their own get, in epoch milliseconds. */
  nowMs = 0
  private readonly tables = new Map<string, Map<string, Row>>()
  private readonly windows = new Map<Window.Any, Map<string, Open>>()
  private readonly references = new Map<string, Map<string, unknown>>()
  private readonly seen = new Map<string, Array<number>>()
  private readonly streamTimes = new Map<number, number>()
  private readonly recorder = new Recorder()
  private readonly projection: Projection<string, Ev, any, E, R, any>
  private readonly partitions: number
  private readonly parks: boolean
  private position = 0
  private meta: Meta | undefined
  /** What deduplication knows the event by. */
  private identity: string | undefined
  /** Whether the event's source has keys; an aggregate's streams have none here. */
  private isKeyed = false

  constructor(
    projection: Projection<string, Ev, any, E, R, any>,
    options: { readonly partitions?: number | undefined; readonly parks?: boolean } = {}
  ) {
    this.projection = projection
    this.partitions = options.partitions ?? 1
    this.parks = options.parks ?? false
    for (const target of projection.writes as ReadonlyArray<Writable>) {
      if (target.kind === "table") this.tables.set(target.name, new Map())
      if (target.kind === "window") this.windows.set(target, new Map())
    }
  }

  /** Puts values on a compacted topic, or rows into a table, before the events. */
  seed(target: Topic.Any | Table.Any, values: ReadonlyArray<object>): void {
    for (const value of values) {
      if (target.kind === "table") this.tableOf(target).set(keyText(target.primaryKey, value as Row), value)
      else this.reference(target.name).set(target.keyOf(value), value)
    }
  }

  /** Handles events as one batch. Fails with the handler's error, or dies with what it threw, unless such events are parked. */
  batch(events: ReadonlyArray<Ev>): Effect.Effect<void, E, R> {
    return Effect.gen({ self: this }, function* () {
      for (const event of events) {
        const handled = Effect.suspend(() => this.event(event) ?? Effect.void)
        const applied = Effect.andThen(
          handled,
          Effect.sync(() => this.apply())
        )
        yield* this.parks ? Effect.catchCause(applied, (cause) => this.park(event, Cause.squash(cause))) : applied
      }
      this.emitUpdates()
    })
  }

  private park(event: Ev, error: unknown): Effect.Effect<void> {
    return Effect.sync(() => {
      const { eventTime, key, partition, position, topic } = this.meta!
      this.seen.get(this.identity ?? "")?.pop()
      const { name: projection, version } = this.projection
      const place = { projection, version, topic, partition, position, key, event_time: eventTime }
      this.dead.push({ ...describeError(error), ...place, value: JSON.stringify(event) })
    })
  }

  /** Time passes without events: stream time follows on every partition, and windows close. */
  idle(durationMs: number): void {
    this.nowMs += durationMs
    for (const [partition, time] of this.streamTimes) this.advance(partition, time + durationMs)
  }

  /** The rows of every table and window, by name, in the order in which they came to be. */
  rows(): Record<string, ReadonlyArray<Row>> {
    const rows: Record<string, ReadonlyArray<Row>> = {}
    for (const [name, table] of this.tables) rows[name] = [...table.values()]
    for (const [window, open] of this.windows) rows[window.name] = [...open.values()].map(({ row }) => row)
    return rows
  }

  private event(event: Ev): Effect.Effect<void, E, R> | undefined {
    const { enrich, handle, sources } = this.projection
    const { type } = event as Partial<Named>
    const source = (sources.find(({ types }) => type !== undefined && types?.includes(type)) ?? sources[0]) as Source<
      Ev,
      any
    > &
      Partial<Topic<string, Ev>>
    const key = source.keyOf?.(event) ?? ""
    this.isKeyed = source.keyOf !== undefined
    const partition = partitionOf(key, this.partitions)
    const eventTime = source.timeOf?.(event) ?? this.nowMs
    const tenant = source.tenantOf?.(event)
    this.nowMs = Math.max(this.nowMs, eventTime)
    this.recorder.log.length = 0 // what a failed event left behind
    this.identity = undefined
    const streamTime = this.advance(partition, eventTime)
    if (this.isDuplicate(source, event, partition, tenant, eventTime)) return undefined
    this.meta = {
      topic: source.name,
      partition,
      position: this.position++,
      key,
      eventTime,
      streamTime,
      tenant,
      traceId: undefined
    }
    const context: Record<string, unknown> = { meta: this.meta }
    for (const name in enrich) {
      const { by, topic } = enrich[name]!
      const lookup = by === undefined ? key : by(event)
      context[name] = lookup === undefined ? undefined : this.reference(topic.name).get(lookup)
    }
    const done = handle(event, this.recorder as never, context)
    return Effect.isEffect(done) ? done : undefined
  }

  private isDuplicate(
    source: Partial<Topic<string, Ev>>,
    event: Ev,
    partition: number,
    tenant: string | undefined,
    time: number
  ) {
    const { dedupe } = this.projection
    const id = dedupe && (dedupe.by ?? source.idOf)?.(event)
    if (dedupe === undefined || id === undefined) return false
    const key = JSON.stringify([partition, tenant, id])
    this.identity = key
    const before = this.seen.get(key) ?? []
    this.seen.set(key, [...before, time])
    return before.some((other) => Math.abs(other - time) <= dedupe.withinMs)
  }

  private apply() {
    const { log } = this.recorder
    if (this.isKeyed) for (let i = 0; i < log.length; i += 3) this.check(log[i], log[i + 1], log[i + 2])
    for (let i = 0; i < log.length; i += 3) {
      const target = log[i + 1]
      const payload = log[i + 2]
      if (log[i] === "add") this.contribute(target, payload)
      else if (log[i] === "publish") this.publish(target, payload)
      else this.write(log[i], target, payload)
    }
    log.length = 0
  }

  /** What the runner would park an event for. */
  private check(kind: string, target: Table.Any | Window.Any, payload: Row) {
    const { key } = this.meta!
    if (kind === "modify") assertOwned(target.name, (target as Table.Any).primaryKey, payload["key"], key)
    if (kind !== "add") return
    const window = target as Window.Any
    if (window.topic !== undefined || hasFold(window)) assertOwned(window.name, window.key, payload, key)
  }

  private write(kind: "upsert" | "update" | "delete" | "modify", table: Table.Any, payload: Row) {
    const rows = this.tableOf(table)
    const key = keyText(table.primaryKey, kind === "modify" ? payload.key : payload)
    const row = rows.get(key)
    const next =
      kind === "upsert"
        ? payload
        : kind === "update"
          ? row && { ...row, ...payload }
          : kind === "modify"
            ? (payload as Modification).change(row)
            : undefined
    if (next === undefined) rows.delete(key)
    else rows.set(key, next)
  }

  /** As a reader of the topic would get it: what the schema does not declare is gone, what does not fit throws. */
  private publish(topic: Topic.Any, written: Row) {
    const value: Row = topic.decode(JSON.parse(JSON.stringify(topic.encode(written))), topic.versionOf(written))
    const key = topic.keyOf(value)
    const partition = partitionOf(key, topic.partitions ?? this.partitions)
    this.published.push({ topic: topic.name, key, partition, value })
  }

  private contribute(window: Window.Any, contribution: Row) {
    const { eventTime, streamTime } = this.meta!
    const rows = this.windows.get(window)!
    const key = Object.fromEntries(window.key.map((column) => [column, contribution[column]]))
    for (const span of spansOf(window.shape, eventTime)) {
      const columns = columnsOf(window, span)
      if (isClosed(window, span.end, streamTime)) {
        this.late.push({ window: window.name, ...key, ...columns })
        continue
      }
      const id = JSON.stringify([keyText(window.key, key), columns])
      let open = window.shape.type === "session" ? this.session(window, key, span) : rows.get(id)
      if (open === undefined) {
        const initial = Object.entries(window.aggregate).map(([column, agg]) => [column, agg.initial])
        rows.set(
          id,
          (open = { row: { ...key, ...columns, ...Object.fromEntries(initial) }, end: span.end, dirty: true })
        )
      }
      for (const column in window.aggregate) {
        open.row[column] = window.aggregate[column]!.add(open.row[column], contribution[column] as never)
      }
      open.dirty = true
    }
  }

  /** Merges the sessions of a key that the event touches; the merged row replaces them. */
  private session(window: Window.Any, key: Row, span: Span): Open | undefined {
    const gapMs = window.shape.type === "session" ? window.shape.gapMs : 0
    const rows = this.windows.get(window)!
    let merged: Open | undefined
    for (const [id, { row }] of rows) {
      const touches = row.window_start - gapMs <= span.end && span.start <= row.window_end + gapMs
      if (!touches || window.key.some((column) => row[column] !== key[column])) continue
      rows.delete(id)
      const other = merged?.row
      const next: Row = {
        ...row,
        window_start: Math.min(row.window_start, span.start, other?.window_start ?? Infinity),
        window_end: Math.max(row.window_end, span.end, other?.window_end ?? -Infinity)
      }
      if (other !== undefined) {
        for (const [column, agg] of Object.entries(window.aggregate)) {
          next[column] = agg.merge?.(row[column], other[column]) ?? row[column]
        }
      }
      merged = { row: next, end: next.window_end, dirty: true }
    }
    if (merged === undefined) return undefined
    rows.set(JSON.stringify([keyText(window.key, key), merged.row.window_start, merged.row.window_end]), merged)
    return merged
  }

  private emitUpdates() {
    for (const [window, rows] of this.windows) {
      if (window.emit !== "onUpdate" || window.topic === undefined) continue
      for (const open of rows.values()) {
        if (open.dirty) this.publish(window.topic, { ...open.row })
        open.dirty = false
      }
    }
  }

  private advance(partition: number, time: number): number {
    const before = this.streamTimes.get(partition) ?? -Infinity
    if (time <= before) return before
    this.streamTimes.set(partition, time)
    for (const [window, rows] of this.windows) {
      if (window.emit !== "onWindowClose" || window.topic === undefined) continue
      const closed = [...rows.values()].filter((open) => open.dirty && isClosed(window, open.end, time))
      for (const open of closed.toSorted((a, b) => a.end - b.end)) {
        open.dirty = false
        this.publish(window.topic, { ...open.row })
      }
    }
    return time
  }

  private tableOf({ name }: Table.Any): Map<string, Row> {
    const rows = this.tables.get(name)
    if (rows === undefined)
      throw new Error(`${this.projection.name} writes no table ${name}; list it in its \`writes\``)
    return rows
  }

  private reference(name: string) {
    let values = this.references.get(name)
    if (values === undefined) this.references.set(name, (values = new Map()))
    return values
  }
}
