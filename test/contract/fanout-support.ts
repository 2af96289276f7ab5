// What the contract of the fan-out needs beside the port: topics to publish to, and the fan-out of another process.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Consumer, FanOut, Message, SubscribeOptions } from "../../src/subscription/fanout.ts"
import { until } from "../support/until.ts"

/** A message to publish; `seq` is its number in the stream `s`. */
export interface Sent {
  readonly key: string
  readonly seq: number
  readonly partition?: number
}
/** Publishes to topics of the adapter under test. */
export class Topics extends Context.Service<
  Topics,
  {
    readonly declare: (topic: string, partitions: number) => Effect.Effect<void, unknown>
    readonly publish: (topic: string, messages: ReadonlyArray<Sent>) => Effect.Effect<void, unknown>
    /** The fan-out of another process. */
    readonly another: Effect.Effect<FanOut["Service"], unknown, Scope.Scope>
  }
>()("test/Topics") {}

let made = 0
/** Creates a topic; by default it has one partition. */
export const topicWith = Effect.fnUntraced(function* (partitions = 1) {
  const topic = `t${process.pid}-${made++}`
  yield* (yield* Topics).declare(topic, partitions)
  return topic
})
/** Messages 1 to `to`, with the keys `k0` to `k<keys - 1>` in turn. */
export const sent = (to: number, from = 1, keys = 4, partitions = 1): ReadonlyArray<Sent> =>
  Array.from({ length: to - from + 1 }, (_, i) => {
    const seq = from + i
    return { key: `k${seq % keys}`, seq, partition: (seq % keys) % partitions }
  })

/** Receives `count` messages; fewer if nothing arrives for so long that no more can be expected. */
export const receiveAll = Effect.fnUntraced(function* (consumer: Consumer, count: number, quietMs = 15_000) {
  const messages: Array<Message> = []
  while (messages.length < count) {
    const more = yield* Effect.timeoutOption(consumer.receive(count - messages.length), quietMs)
    if (more._tag === "None") break
    messages.push(...more.value)
  }
  return messages
})
/** The messages that arrive within a short time, to check that there are none. */
export const within = (consumer: Consumer, ms: number) => receiveAll(consumer, Infinity, ms)
/** Receives `count` messages, and those that arrive beyond them. */
export const receiveJust = Effect.fnUntraced(function* (consumer: Consumer, count: number) {
  return [...(yield* receiveAll(consumer, count)), ...(yield* within(consumer, 300))]
})
/** The messages of each of several consumers, until they have `count` together, and those that arrive shortly after. */
export const receiveAmong = Effect.fnUntraced(function* (consumers: ReadonlyArray<Consumer>, count: number) {
  const received = consumers.map((): Array<Message> => [])
  const taking = consumers.map((consumer, i) =>
    Effect.gen(function* () {
      const own = received[i]!
      while (own.length < count) own.push(...(yield* consumer.receive(count - own.length)))
    })
  )
  yield* Effect.raceFirst(
    Effect.andThen(Effect.all(taking, { concurrency: "unbounded" }), Effect.never),
    Effect.andThen(
      until(() => received.flat().length >= count),
      Effect.sleep(300)
    )
  )
  return received
})
export const seqs = (messages: ReadonlyArray<Message>) => messages.map(({ seq }) => seq)
export const upTo = (to: number, from = 1) => Array.from({ length: to - from + 1 }, (_, i) => from + i)
export const ascending = (numbers: ReadonlyArray<number | undefined>) => numbers.toSorted((a, b) => a! - b!)
export const options = (
  topic: string,
  type: SubscribeOptions["type"],
  rest: Partial<SubscribeOptions> = {}
): SubscribeOptions => ({
  topic,
  name: "sub",
  type,
  from: "earliest",
  redeliveryDelayMs: 100,
  ...rest
})
