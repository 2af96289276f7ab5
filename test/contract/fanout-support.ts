// What the fan-out's contract needs beside the port: topics to publish to, and a fan-out as another process has it.
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
/** The topics of an adapter under test. */
export class Topics extends Context.Service<
  Topics,
  {
    readonly declare: (topic: string, partitions: number) => Effect.Effect<void, unknown>
    readonly publish: (topic: string, messages: ReadonlyArray<Sent>) => Effect.Effect<void, unknown>
    /** The same fan-out as another process has it. */
    readonly another: Effect.Effect<FanOut["Service"], unknown, Scope.Scope>
  }
>()("test/Topics") {}

let made = 0
/** A new topic with one partition, or several. */
export const topicWith = Effect.fnUntraced(function* (partitions = 1) {
  const topic = `t${process.pid}-${made++}`
  yield* (yield* Topics).declare(topic, partitions)
  return topic
})
/** Messages 1 to `to`, with keys `k0` to `k<keys - 1>` in turn. */
export const sent = (to: number, from = 1, keys = 4, partitions = 1): ReadonlyArray<Sent> =>
  Array.from({ length: to - from + 1 }, (_, i) => {
    const seq = from + i
    return { key: `k${seq % keys}`, seq, partition: (seq % keys) % partitions }
  })

/** Receives until there are `count`. Answers fewer where nothing comes for so long that more are not to be expected. */
export const receiveAll = Effect.fnUntraced(function* (consumer: Consumer, count: number, quietMs = 15_000) {
  const messages: Array<Message> = []
  while (messages.length < count) {
    const more = yield* Effect.timeoutOption(consumer.receive(count - messages.length), quietMs)
    if (more._tag === "None") break
    messages.push(...more.value)
  }
  return messages
})
/** What comes within a while: to see that nothing does. */
export const within = (consumer: Consumer, ms: number) => receiveAll(consumer, Infinity, ms)
/** All that there is: `count`, and what comes beyond that. */
export const receiveJust = Effect.fnUntraced(function* (consumer: Consumer, count: number) {
  return [...(yield* receiveAll(consumer, count)), ...(yield* within(consumer, 300))]
})
/** What each of several consumers gets, at most `count`, until they have so many together, and in the moment after that. */
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
