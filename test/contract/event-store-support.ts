// What the files of the event store's contract share: aggregates, events and appends.
import type { it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Append, EventStore, type Expected, type NewEvent } from "../../src/aggregate/event-store.ts"
import { Log, type LogRecord } from "../../src/log/log.ts"

export type It = Parameters<Parameters<ReturnType<typeof vitest.layer<EventStore | Log, unknown>>>[1]>[0]

let made = 0
/** Declares an aggregate that no other test uses, and returns its name. */
export const fresh = Effect.fnUntraced(function* (partitions = 4) {
  const name = `aggregate-${process.pid}-${made++}`
  yield* (yield* EventStore).declare([{ name, partitions }])
  return name
})
/** A command id that no other test uses. */
export const commandId = () => `command ${process.pid} ${made++}`
/** An event with a number. */
export const event = (n: number, given: Partial<NewEvent> = {}): NewEvent => ({
  type: "counted",
  value: JSON.stringify({ type: given.type ?? "counted", n }),
  eventTime: 1_357_000_000_000 + n,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: undefined,
  headers: {},
  ...given
})
/** Events with the numbers from `from` on. */
export const events = (count: number, from = 1, given: Partial<NewEvent> = {}): ReadonlyArray<NewEvent> =>
  Array.from({ length: count }, (_, i) => event(from + i, given))
/** An append of events. */
export const appendOf = (
  aggregate: string,
  stream: string,
  expected: Expected,
  list: ReadonlyArray<NewEvent> = [event(1)],
  more: Partial<Append> = {}
): Append => ({ aggregate, stream, expected, events: list, ...more })
/** Appends with a command id of its own. */
export const append = Effect.fnUntraced(function* (...given: Parameters<typeof appendOf>) {
  return yield* (yield* EventStore).append(appendOf(...given), commandId())
})
/** All events of a stream. */
export const readAll = Effect.fnUntraced(function* (aggregate: string, stream: string) {
  return yield* Stream.runCollect((yield* EventStore).read(aggregate, stream))
})
/** The numbers of events. */
export const numbers = (list: ReadonlyArray<{ readonly value: string | null }>): ReadonlyArray<number> =>
  list.map(({ value }) => (JSON.parse(value!) as { readonly n: number }).n)
/** All records of the aggregate's topic, by partition. */
export const topicOf = Effect.fnUntraced(function* (aggregate: string) {
  const log = yield* Log
  const ends = yield* log.ends(aggregate)
  return yield* Effect.forEach(ends, (end, partition) =>
    Effect.gen(function* () {
      const records: Array<LogRecord> = []
      for (let position = 0; position < end;) {
        const batch = yield* log.read(aggregate, partition, position)
        records.push(...batch.records)
        position = batch.next
      }
      return records
    })
  )
})
