// The store port in memory, for one projection: commits changes to maps of rows as PostgreSQL's statement does, and refuses what it refuses.
import { noKeys } from "../erasure/subject-keys.ts"
import * as Effect from "effect/Effect"
import { mostKeyBytes, tooLongKey } from "../dead-letter/event-failure.ts"
import { recordFromEnvelope } from "../dead-letter/retry-record.ts"
import { readModelsOf, type Relation, UnencodableValue } from "../model/columns.ts"
import { keyText } from "../model/fields.ts"
import type { Writable } from "../model/handler.ts"
import type { Projection } from "../model/projection.ts"
import type { Row } from "../model/recorder.ts"
import { MemoryTimers } from "./memory-timers.ts"
import { memoryLookupStore } from "./lookup-store.ts"
import {
  Fenced,
  Store,
  Unstorable,
  type Changes,
  type Claim,
  type DeadLetter,
  type LateEvent,
  type OpenDeadLetter,
  type PackedIds,
  type ProjectionPartition,
  type RetriedDeadLetter,
  type TableChange,
  type WindowChange
} from "./store.ts"
import {
  assertInstant,
  assertNotNull,
  byKey,
  decoded,
  keyOnly,
  merged,
  messageText,
  parsedRow,
  refused,
  storedRow
} from "./stored-values.ts"

/** A message in the outbox. `source` and `sourcePartition` name its stream; a stream's messages are in order. */
export interface OutboxMessage {
  readonly source: string
  readonly sourcePartition: number
  readonly topic: string
  readonly key: string
  readonly eventTime: number
  readonly eventId: string | null
  readonly tenant: string | null
  readonly traceparent: string | null
  readonly schemaVersion: number
  /** The value's JSON text. */
  readonly value: string
}
/** A dead letter with the partition of its record, and what became of its retry. */
export interface StoredDeadLetter extends Omit<DeadLetter, "status"> {
  readonly at: ProjectionPartition
  readonly status: DeadLetter["status"] | "retried" | "discarded"
  /** The position of the record by which it was last retried. */
  readonly retriedPosition?: number
}
/** A late event, and the partition that its record lies in. */
export interface StoredLateEvent extends LateEvent {
  readonly at: ProjectionPartition
}

/** A read model's rows, by the text of their keys. A row holds what PostgreSQL's columns would: jsonb as JSON text, instants as milliseconds. */
interface StoredRows {
  readonly relation: Relation
  readonly rows: Map<string, Row>
}
/** Whether the store keeps a row: by the name of its table or window, and the text of its key. */
export type KeepsRow = (name: string, key: string) => boolean
/** Rows of which only some are kept. */
class SomeRows extends Map<string, Row> {
  private readonly keeps: (key: string) => boolean
  constructor(keeps: (key: string) => boolean) {
    super()
    this.keeps = keeps
  }
  override set(key: string, row: Row): this {
    return this.keeps(key) ? super.set(key, row) : this
  }
}
/** What a commit does with one row; an undefined row is deleted. */
interface RowWrite {
  readonly rows: Map<string, Row>
  readonly key: string
  readonly row: Row | undefined
}

type MetaElement = readonly [
  key: string,
  eventTime: number,
  eventId: string | null,
  tenant: string | null,
  traceparent: string | null,
  schemaVersion?: number
]
const textAt = ({ partition, topic }: ProjectionPartition) => `${topic}/${partition}`
const note = (reasons: Map<string, string>, at: ProjectionPartition, reason: string | undefined) =>
  void (reason === undefined ? reasons.delete(textAt(at)) : reasons.set(textAt(at), reason))
const keyAt = (at: ProjectionPartition, key: string) => `${textAt(at)}/${key}`
const isOpen = ({ status }: StoredDeadLetter) => status === "parked" || status === "skipped"

/** A store for one projection that keeps everything in memory. `service` is the port. */
export class MemoryStore {
  readonly outbox: Array<OutboxMessage> = []
  readonly late: Array<StoredLateEvent> = []
  readonly deadLetters: Array<StoredDeadLetter> = []
  /** Timers that wait, and commands that were sent. */
  readonly timers = new MemoryTimers()
  /** Why partitions are halted, by `topic/partition`. */
  readonly halted = new Map<string, string>()
  /** Why partitions are being tried again, by `topic/partition`. */
  readonly waiting = new Map<string, string>()
  private readonly relations: ReadonlyMap<string, StoredRows>
  /** How far each partition is, by `topic/partition`. */
  readonly claims = new Map<string, Claim>()
  /** The index in `deadLetters` by the partition's text and the position, and the indexes of the open ones by that text and the key. */
  private readonly indexes = new Map<string, number>()
  private readonly openByKey = new Map<string, Set<number>>()
  private readonly seen = new Map<string, Array<PackedIds>>()
  private epochs = 0
  private readonly mode: "live" | "follower"

  /**
   * `mode`: that of all partitions. A follower's messages are muted. `keeps`: which rows are kept; the others are checked as all rows are, and then
   * forgotten. Default: all are kept.
   */
  constructor({ writes }: Projection.Any, mode: "live" | "follower" = "live", keeps?: KeepsRow) {
    this.mode = mode
    const rowsOf = (name: string) => (keeps === undefined ? new Map() : new SomeRows((key) => keeps(name, key)))
    this.relations = new Map(
      readModelsOf(writes as ReadonlyArray<Writable>).map((relation) => [
        relation.name,
        { relation, rows: rowsOf(relation.name) }
      ])
    )
  }

  readonly service: Store["Service"] = Store.of({
    prepare: (projections) => Effect.succeed(projections),
    claim: (projection, topic, partition) => Effect.sync(() => this.claim(projection, topic, partition)),
    commit: (_, claim, changes) => Effect.map(this.prepareCommit(claim, changes), (apply) => apply()),
    // the partitions that it would follow are those of another store
    bound: () => Effect.succeed(Infinity),
    readRows: (_, { name }, keys) => orUnstorable(() => Effect.succeed(this.readRows(name, keys))),
    seenIds: (at, ranges) =>
      Effect.sync(() =>
        this.seenOf(at)
          .filter(({ maxTime, minTime }) => ranges.some(({ from, to }) => maxTime >= from && minTime <= to))
          .map(({ packed }) => packed)
      ),
    deadLetters: (at, position, { behind, ordered }) =>
      Effect.sync(() => this.openDeadLetters(at, position, ordered, behind)),
    parkedKeys: (at, keys) =>
      Effect.sync(() => {
        const isParked = (key: string) => this.openOf(at, key).some(({ status }) => status !== "skipped")
        return keys.filter(isParked)
      }),
    // one build alone follows nothing
    liveDecisions: () => Effect.succeed([]),
    park: (at, deadLetter) => Effect.sync(() => this.addDeadLetter(at, deadLetter)),
    isGone: () => Effect.succeed(false),
    halt: (at, reason) =>
      Effect.sync(() => {
        note(this.waiting, at, undefined)
        note(this.halted, at, reason)
      }),
    waiting: (at, reason) => Effect.sync(() => note(this.waiting, at, reason)),
    lookups: memoryLookupStore(),
    subjectKeys: noKeys
  })

  /** Checks a commit, and returns what makes it. Nothing may be committed in between. */
  readonly prepareCommit = (claim: Claim, changes: Changes): Effect.Effect<() => Claim, Fenced | Unstorable> =>
    orUnstorable(() => this.preparedCommit(claim, changes))

  /** How many rows of all tables and windows are kept. */
  get size(): number {
    return [...this.relations.values()].reduce((sum, { rows }) => sum + rows.size, 0)
  }
  /** A row as PostgreSQL's client returns it, by the text of its key; undefined if there is none. */
  row(name: string, key: string): Row | undefined {
    const { relation, rows } = this.relations.get(name)!
    const row = rows.get(key)
    return row && parsedRow(relation, row)
  }
  /** The rows of a table or window, as the definition has them, in the order in which they were inserted. */
  rows(name: string): ReadonlyArray<Row> {
    const { relation, rows } = this.relations.get(name)!
    return [...rows.values()].map((row) => decoded(relation, row))
  }
  /** Whether the projection writes the read model. */
  has(name: string): boolean {
    return this.relations.has(name)
  }
  /** Puts rows into a read model before any commit. Throws `Unstorable`. */
  seed(name: string, rows: ReadonlyArray<Row>): void {
    const to = this.relations.get(name)!
    for (const row of rows) apply(this.upserts(to, [row]))
  }

  private claim({ name: projection, version }: Projection.Any, topic: string, partition: number): Claim {
    const at = { projection, version, topic, partition }
    const none = { hasSucceeded: false, commitNo: 0, position: 0, fingerprint: undefined, outboxSeq: 0 }
    const times = { streamTime: undefined, streamTimes: undefined, announced: undefined }
    const seen = { seenChunk: 0, seenFill: 0, lookups: "asSeen", journal: 1 } as const
    const first = { ...at, ...none, ...times, ...seen, identity: undefined, mode: this.mode }
    const epoch = ++this.epochs
    const newestSeen = this.seenOf(at).reduce<number | undefined>(
      (newest, { maxTime }) => Math.max(newest ?? -Infinity, maxTime),
      undefined
    )
    const claim = { ...(this.claims.get(textAt(at)) ?? first), epoch, incarnation: `incarnation ${epoch}`, newestSeen }
    this.claims.set(textAt(at), claim)
    return claim
  }

  private preparedCommit(claim: Claim, changes: Changes): Effect.Effect<() => Claim, Fenced> {
    const held = this.claims.get(textAt(claim))
    if (held?.incarnation !== claim.incarnation || held.commitNo !== claim.commitNo)
      return Effect.fail(new Fenced(claim))
    // everything that can be refused comes before the first write
    for (const { start } of changes.late) assertInstant(start)
    const writes = changes.tables.flatMap((change) => this.tableWrites(change))
    const windows = changes.windows.map((change) => ({ change, writes: this.windowWrites(change) }))
    const messages = [
      ...this.published(claim, changes),
      ...windows.toReversed().flatMap((of) => this.updates(claim, of))
    ]
    return Effect.succeed(() => {
      apply([...writes, ...windows.flatMap((of) => of.writes)])
      return this.applyCommit(claim, changes, messages)
    })
  }
  private applyCommit(claim: Claim, changes: Changes, messages: ReadonlyArray<OutboxMessage>): Claim {
    this.outbox.push(...messages)
    if (changes.commands !== undefined) this.timers.apply(changes.commands)
    for (const late of changes.late) this.late.push({ ...late, at: claim })
    for (const deadLetter of changes.deadLetters) this.addDeadLetter(claim, deadLetter)
    for (const retried of changes.retried ?? []) this.retry(claim, retried)
    for (const position of changes.discarded ?? []) this.discard(claim, position)
    if (changes.seen !== undefined)
      this.seen.set(textAt(claim), [...(this.seen.get(textAt(claim)) ?? []), changes.seen])
    const { failing, fingerprint, marks = [], position, streamTime } = changes
    const { streamTimes = claim.streamTimes, announced = claim.announced } = changes
    // marks are no messages, but they have numbers in the stream
    const outboxSeq = claim.outboxSeq + messages.length + marks.length
    const commitNo = claim.commitNo + 1
    const hasSucceeded = claim.hasSucceeded || changes.events > 0
    const moved = { position, fingerprint, streamTime, streamTimes, announced, outboxSeq, failing, hasSucceeded }
    const next = { ...claim, commitNo, ...moved }
    this.claims.set(textAt(claim), next)
    for (const reasons of [this.halted, this.waiting]) note(reasons, claim, undefined)
    return next
  }

  private tableWrites({ deletes, table, updates, upserts }: TableChange): ReadonlyArray<RowWrite> {
    const to = this.relations.get(table.name)!
    const { relation, rows } = to
    const changed = updates.flatMap((patch) => {
      const next = storedRow(relation, patch)
      const key = keyText(relation.key, next)
      const before = rows.get(key)
      if (before === undefined) return []
      const given = Object.entries(next).filter(([column]) => column in patch)
      return [{ rows, key, row: assertNotNull(relation, { ...before, ...Object.fromEntries(given) }) }]
    })
    const deleted = deletes.map((row) => ({
      rows,
      key: keyText(relation.key, storedRow(keyOnly(relation), row)),
      row: undefined
    }))
    return [...this.upserts(to, upserts), ...changed, ...deleted]
  }
  private upserts({ relation, rows }: StoredRows, upserted: ReadonlyArray<Row>): ReadonlyArray<RowWrite> {
    const writes = upserted.map((given) => {
      const row = assertNotNull(relation, storedRow(relation, given))
      const bytes = tooLongKey(relation.key, row)
      if (bytes !== undefined)
        throw refused("54000", `the key of a row of ${relation.name} has ${bytes} bytes, more than ${mostKeyBytes}`)
      return { rows, key: keyText(relation.key, row), row }
    })
    assertDistinct(relation, writes)
    return writes
  }
  private windowWrites({ deltas, window }: WindowChange): ReadonlyArray<RowWrite & { readonly row: Row }> {
    const { relation, rows } = this.relations.get(window.name)!
    const writes = deltas.map((delta) => {
      const added = assertNotNull(relation, storedRow(relation, delta.row))
      const key = keyText(relation.key, added)
      const before = rows.get(key)
      if (before === undefined) return { rows, key, row: added }
      const values = relation.columns
        .filter(({ name }) => !relation.key.includes(name))
        .map((column) => [column.name, merged(column, before[column.name] as never, added[column.name] as never)])
      return { rows, key, row: { ...before, ...(Object.fromEntries(values) as Row) } }
    })
    assertDistinct(relation, writes)
    return writes
  }

  /** What handlers published, and dead letters. It comes before what windows publish. */
  private published({ partition, topic: source }: Claim, { segments }: Changes): ReadonlyArray<OutboxMessage> {
    return segments.flatMap(({ meta, topic, vals }) => {
      const values = vals.split("\n")
      return (JSON.parse(meta) as ReadonlyArray<MetaElement>).map(
        ([key, eventTime, eventId, tenant, traceparent, schemaVersion = 1], i): OutboxMessage => ({
          source,
          sourcePartition: partition,
          topic,
          key,
          eventTime,
          eventId,
          tenant,
          traceparent,
          schemaVersion,
          value: values[i]!
        })
      )
    })
  }
  /** The new rows of a window that publishes its updates, in the order of their keys. The windows' own order is that of the statement. */
  private updates(
    { partition, topic: source }: Claim,
    {
      change,
      writes
    }: { readonly change: WindowChange; readonly writes: ReadonlyArray<RowWrite & { readonly row: Row }> }
  ): ReadonlyArray<OutboxMessage> {
    const { topic } = change.window
    const { relation } = this.relations.get(change.window.name)!
    if (topic === undefined || change.isMuted) return []
    const compare = byKey(relation)
    return writes
      .map(({ row }, i) => ({ row, delta: change.deltas[i]! }))
      .toSorted((a, b) => compare(a.row, b.row))
      .map(({ delta, row }): OutboxMessage => {
        const { eventTime, key, tenant = null, traceparent = null } = delta
        return {
          source,
          sourcePartition: partition,
          topic: topic.name,
          key,
          eventTime,
          eventId: null,
          tenant,
          traceparent,
          schemaVersion: 1,
          value: messageText(relation, row, topic.fields)
        }
      })
  }

  private readRows(name: string, keys: ReadonlyArray<Row>): ReadonlyArray<Row> {
    const { relation, rows } = this.relations.get(name)!
    return keys.flatMap((key) => {
      const row = rows.get(keyText(relation.key, storedRow(keyOnly(relation), key)))
      return row === undefined ? [] : [parsedRow(relation, row)]
    })
  }

  private seenOf(at: ProjectionPartition): Array<PackedIds> {
    const found = this.seen.get(textAt(at)) ?? []
    this.seen.set(textAt(at), found)
    return found
  }
  /** The open dead letters of a key, in the order in which they came. */
  private openOf(at: ProjectionPartition, key: string): ReadonlyArray<StoredDeadLetter> {
    return Array.from(this.openByKey.get(keyAt(at, key)) ?? [], (i) => this.deadLetters[i]!)
  }
  private indexOf(at: ProjectionPartition, position: number): number {
    return this.indexes.get(`${textAt(at)}/${position}`) ?? -1
  }
  /** Puts a dead letter at an index, which is new or has it as it was before. */
  private put(i: number, deadLetter: StoredDeadLetter): void {
    const { at, key, position } = deadLetter
    this.deadLetters[i] = deadLetter
    this.indexes.set(`${textAt(at)}/${position}`, i)
    if (key === null) return
    const text = keyAt(at, key)
    const open = this.openByKey.get(text) ?? new Set()
    if (isOpen(deadLetter)) open.add(i)
    else open.delete(i)
    if (open.size === 0) this.openByKey.delete(text)
    else this.openByKey.set(text, open)
  }
  private openDeadLetters(at: ProjectionPartition, position: number, ordered: boolean, behind: number) {
    const head = this.deadLetters[this.indexOf(at, position)]
    if (head === undefined || !isOpen(head) || head.envelope === undefined) return []
    if (!ordered) return [opened(head)]
    const ofKey = (head.key === null ? [] : this.openOf(at, head.key))
      .filter(({ envelope }) => envelope !== undefined)
      .toSorted((a, b) => a.position - b.position)
    if (ofKey[0] !== undefined && ofKey[0] !== head) return []
    return (ofKey.length === 0 ? [head] : ofKey).slice(0, behind + 1).map(opened)
  }
  private addDeadLetter(at: ProjectionPartition, deadLetter: DeadLetter): void {
    if (this.indexOf(at, deadLetter.position) === -1) this.put(this.deadLetters.length, { ...deadLetter, at })
  }
  private discard(at: ProjectionPartition, position: number): void {
    const i = this.indexOf(at, position)
    const before = this.deadLetters[i]
    if (before !== undefined && isOpen(before)) this.put(i, { ...before, status: "discarded" })
  }
  private retry(at: ProjectionPartition, { by, failed, position }: RetriedDeadLetter): void {
    const i = this.indexOf(at, position)
    const before = this.deadLetters[i]
    if (before === undefined) return
    const attempts = before.attempts + (failed?.attempts ?? 1)
    const status = failed === undefined ? ("retried" as const) : ("parked" as const)
    const { error, message, thrownAt } = failed ?? before
    this.put(i, { ...before, status, error, message, thrownAt, attempts, retriedPosition: by })
  }
}

const apply = (writes: ReadonlyArray<RowWrite>) => {
  for (const { key, row, rows } of writes) {
    if (row === undefined) rows.delete(key)
    else rows.set(key, row)
  }
}
/** One statement cannot change a row twice: keys that differ here and are one key in the database are refused. */
const assertDistinct = ({ name }: Relation, writes: ReadonlyArray<RowWrite>) => {
  if (new Set(writes.map(({ key }) => key)).size < writes.length)
    throw refused("21000", `two rows of ${name} have the same key`)
}
const opened = ({ at, envelope, position, streamTime, value }: StoredDeadLetter): OpenDeadLetter => ({
  record: { ...recordFromEnvelope(envelope!, at.partition, value), position, appendedAt: 0 },
  streamTime
})
/** Runs what may throw `Unstorable`, or `UnencodableValue`, which is the same. */
const orUnstorable = <A, E>(run: () => Effect.Effect<A, E>): Effect.Effect<A, E | Unstorable> =>
  Effect.suspend((): Effect.Effect<A, E | Unstorable> => {
    try {
      return run()
    } catch (error) {
      if (error instanceof Unstorable) return Effect.fail(error)
      if (error instanceof UnencodableValue) return Effect.fail(refused(error.code, error.message))
      throw error
    }
  })
