// The lookups of a partition's batches: which versions a batch sees, the values of its events, and what the journal gets.
//
// A live batch pins how far the lookup topics were read when it began. A follower takes the pins from the journal, event by event. Both then
// ask the same question, so a replay gives each event the value that it had, whatever the borders of batches.
import * as Effect from "effect/Effect"
import { brokerTimeOf, type LogRecord } from "../log/log.ts"
import type { Projection } from "../model/projection.ts"
import type { DecodedEvent } from "./event-decoder.ts"
import type { JournalEntry, LookupPin, LookupRequest } from "./lookup-store.ts"
import type { LookupError, LookupTable } from "./lookup-tables.ts"
import { eventText, runAs } from "./running-code.ts"
import type { Claim, Store, StoreError } from "./store.ts"

/** The values of an event's lookups, in the order of their declaration, or why one of them cannot be had. */
export type LookedUp = ReadonlyArray<unknown> | LookupFailure
/** Why an event's lookups failed: `by` threw, or the value cannot be read. */
export class LookupFailure {
  readonly error: unknown

  constructor(error: unknown) {
    this.error = error
  }
}
/** A pin, and whether values count that the log stored after the event. */
interface Seen {
  readonly pin: LookupPin
  readonly newest: boolean
}
/** What all events at the positions from `from` until before `to` see. */
interface SeenBetween extends Seen {
  readonly from: number
  readonly to: number
}
/** A lookup of the projection. */
interface DeclaredLookup {
  readonly topic: LookupTopic
  readonly by: Projection.Any["enrich"][string]["by"]
  readonly asOf: Projection.Any["enrich"][string]["asOf"]
}
/** A lookup topic, as the batches of one partition use it. */
interface LookupTopic {
  readonly name: string
  readonly table: LookupTable
  /** Whether only values of the event's own key are looked up. */
  readonly isOwnKey: boolean
  /** Whether a value was in another partition of the topic than the event is in its own. */
  crosses: boolean
  pin: LookupPin
  /** The entries of the journal for the batch, by position; undefined if it sees what a live one sees. */
  journal: ReadonlyArray<JournalEntry> | undefined
  /** What the last event of the batch saw, if it goes by the journal. */
  seen: SeenBetween | undefined
  /** What the journal has, as text. */
  noted: string | undefined
}
/** A value that the store is asked for. */
interface Asked {
  readonly request: LookupRequest
  /** Which event and which of its lookups it is for. */
  readonly for: Array<readonly [event: number, lookup: number]>
}

/** Resolves the lookups of one partition under one claim. */
export class BatchLookups {
  private readonly projection: Projection.Any
  private readonly store: Store["Service"]
  private readonly source: string
  private readonly partition: number
  private readonly partitions: number
  private readonly topics: ReadonlyArray<LookupTopic>
  private readonly lookups: ReadonlyArray<DeclaredLookup>
  private mode: "live" | "asSeen" | "today" = "live"

  /** `partitions`: how many the source has. `lookupTables`: the tables of the projection's lookup topics, by topic. */
  constructor(
    projection: Projection.Any,
    { partition, topic: source }: Claim,
    partitions: number,
    lookupTables: ReadonlyMap<string, LookupTable>,
    store: Store["Service"]
  ) {
    this.projection = projection
    this.store = store
    this.source = source
    this.partition = partition
    this.partitions = partitions
    const declared = Object.values(projection.enrich)
    const topics = new Map(
      declared.map(({ topic: { name } }): [string, LookupTopic] => {
        const isOwnKey = declared.every(({ by, topic }) => topic.name !== name || by === undefined)
        const table = lookupTables.get(name)!
        const pin = { generation: 0, positions: [] }
        const unread = { pin, journal: undefined, seen: undefined, noted: undefined }
        return [name, { name, table, isOwnKey, crosses: false, ...unread }]
      })
    )
    this.topics = [...topics.values()]
    this.lookups = declared.map(({ asOf, by, topic }) => ({ by, asOf, topic: topics.get(topic.name)! }))
  }

  /**
   * Begins a batch of records at positions from that of the claim up to `last`: reads each lookup topic up to its present end, so that the
   * events see every value that was appended before them, and pins what they see.
   */
  begin(claim: Claim, last: number): Effect.Effect<void, LookupError> {
    return this.topics.length === 0 ? Effect.void : this.beginTopics(claim, last)
  }
  private readonly beginTopics = Effect.fnUntraced(function* (this: BatchLookups, claim: Claim, last: number) {
    this.mode = claim.mode !== "follower" ? "live" : claim.lookups
    for (const { table } of this.topics) yield* table.catchUp
    for (const topic of this.topics) topic.pin = topic.table.pin
    if (this.mode !== "asSeen") return
    for (const topic of this.topics) {
      topic.journal = yield* this.store.lookups.journal(claim, topic.name, claim.position, last)
      topic.seen = undefined
    }
  })

  /**
   * The values of events' lookups, in the order of the events. `retriedBy`: the position of the retry record that brought an event back. Such
   * an event sees what that position sees, as it does in a replay.
   */
  resolve(
    events: ReadonlyArray<DecodedEvent>,
    retriedBy: (record: LogRecord) => number | undefined
  ): Effect.Effect<ReadonlyArray<LookedUp>, StoreError> {
    if (this.lookups.length === 0) return Effect.succeed([])
    const asked = new Map<LookupTopic, Map<string, Asked>>()
    const values = events.map((event, i) =>
      this.valuesOf(event, retriedBy(event.record) ?? event.record.position, i, asked)
    )
    return asked.size === 0 ? Effect.succeed(values) : Effect.as(this.ask(asked, values), values)
  }
  private valuesOf(
    { event, record, time }: DecodedEvent,
    position: number,
    index: number,
    asked: Map<LookupTopic, Map<string, Asked>>
  ): Array<unknown> | LookupFailure {
    const values: Array<unknown> = []
    for (let i = 0; i < this.lookups.length; i++) {
      const { asOf, by, topic } = this.lookups[i]!
      let key: string | undefined
      try {
        key = by === undefined ? (record.key ?? "") : this.keyOf(by, event, record)
      } catch (error) {
        return new LookupFailure(error)
      }
      if (key === undefined) {
        values.push(undefined)
        continue
      }
      const { newest, pin } = this.seenAt(topic, position)
      const isByTime = asOf === "eventTime"
      const appendedBy = newest || isByTime ? undefined : brokerTimeOf(record)
      const answer = isByTime ? undefined : topic.table.answer(key, pin, appendedBy)
      values.push(answer?.value)
      if (answer === undefined) {
        const request = { key, pin, appendedBy, validAt: isByTime ? time : undefined }
        note(asked, topic, request, [index, i])
      } else if (answer.partition !== undefined && answer.partition !== this.partition) topic.crosses = true
    }
    return values
  }
  private keyOf(by: (event: never) => string | undefined, event: unknown, record: LogRecord): string | undefined {
    const { partition, position } = record
    const at = { topic: this.source, partition, position }
    return runAs(
      () => eventText(this.projection, at),
      () => by(event as never)
    )
  }

  /** What the event at a position sees of a topic. */
  private seenAt(topic: LookupTopic, position: number): Seen {
    if (this.mode === "today") return { pin: topic.pin, newest: true }
    if (topic.journal === undefined) return { pin: topic.pin, newest: false }
    const { seen } = topic
    if (seen !== undefined && position >= seen.from && position < seen.to) return seen
    const at = topic.journal.findLastIndex(({ from }) => from <= position)
    const entry = topic.journal[at]
    const bounds = { from: entry?.from ?? -Infinity, to: topic.journal[at + 1]?.from ?? Infinity }
    // an event from before the journal was kept sees the newest values
    topic.seen =
      entry === undefined
        ? { pin: topic.pin, newest: true, ...bounds }
        : { pin: pinOf(entry, topic), newest: entry.newest, ...bounds }
    return topic.seen
  }

  private readonly ask = Effect.fnUntraced(function* (
    this: BatchLookups,
    asked: Map<LookupTopic, Map<string, Asked>>,
    values: Array<Array<unknown> | LookupFailure>
  ) {
    for (const [topic, requests] of asked) {
      const list = [...requests.values()]
      const answers = yield* topic.table.find(list.map(({ request }) => request))
      for (const [i, answer] of answers.entries())
        for (const [event, lookup] of list[i]!.for) {
          const of = values[event]!
          if ("error" in answer) values[event] = new LookupFailure(answer.error)
          else if (!(of instanceof LookupFailure)) {
            of[lookup] = answer.value
            if (answer.partition !== undefined && answer.partition !== this.partition) topic.crosses = true
          }
        }
    }
  })

  /** What the commit of a batch that begins at a position adds to the journal: the topics whose pins moved since the last entry. */
  entries(from: number): ReadonlyArray<JournalEntry> {
    if (this.mode === "asSeen") return []
    return this.topics.flatMap((topic): ReadonlyArray<JournalEntry> => {
      const text = this.textOf(topic)
      if (text === topic.noted || topic.pin.generation === 0) return []
      const { generation, positions } = topic.pin
      const only = this.onlyOf(topic)
      const of = only === undefined ? positions : [positions[only] ?? 0]
      const isFirst = topic.noted === undefined
      return [{ lookup: topic.name, from, generation, only, newest: this.mode === "today", positions: of, isFirst }]
    })
  }
  /** The batch is committed: the journal has its entries. */
  onCommitted(): void {
    for (const topic of this.topics) if (topic.pin.generation > 0) topic.noted = this.textOf(topic)
  }
  /** The partition of the topic that alone matters; undefined if all do. */
  private onlyOf({ crosses, isOwnKey, pin, table }: LookupTopic): number | undefined {
    const isOne = isOwnKey && !crosses && !table.isScattered && pin.positions.length === this.partitions
    return isOne ? this.partition : undefined
  }
  private textOf(topic: LookupTopic): string {
    const { generation, positions } = topic.pin
    const only = this.onlyOf(topic)
    return `${this.mode}/${generation}/${only ?? ""}/${only === undefined ? positions.join() : positions[only]}`
  }
}

/** The pin of an entry. Partitions that it does not have count for nothing: there was nothing in them, or no event looked there. */
const pinOf = ({ generation, only, positions }: JournalEntry, { isOwnKey, pin }: LookupTopic): LookupPin => {
  if (only === undefined) return { generation, positions }
  // this version looks up other keys than the one before, for which there is no journal
  const others = isOwnKey ? [] : pin.positions
  const all = Array.from({ length: Math.max(only + 1, others.length) }, (_, partition) => others[partition] ?? 0)
  all[only] = positions[0]!
  return { generation, positions: all }
}
const note = (
  asked: Map<LookupTopic, Map<string, Asked>>,
  topic: LookupTopic,
  request: LookupRequest,
  of: readonly [event: number, lookup: number]
) => {
  const requests = asked.get(topic) ?? new Map<string, Asked>()
  asked.set(topic, requests)
  const { appendedBy, key, pin, validAt } = request
  const text = `${pin.generation}/${pin.positions.join()}/${appendedBy}/${validAt}/${key}`
  const same = requests.get(text)
  if (same === undefined) requests.set(text, { request, for: [of] })
  else same.for.push(of)
}
