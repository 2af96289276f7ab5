// `Subscription.run` on a fan-out that the test controls: what is returned because it was not redelivered in time is overtaken by nothing.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import { FanOut, type Message } from "../../../src/subscription/fanout.ts"
import { Subscription } from "../../../src/subscription/subscription.ts"
import { Topic } from "../../../src/model/topic.ts"
import { until } from "../../support/until.ts"

const messageOf = (seq: number, redeliveries = 0): Message => ({
  topic: "t",
  partition: 0,
  position: seq,
  key: "k",
  value: JSON.stringify({ seq }),
  eventTime: 0,
  properties: {},
  stream: undefined,
  seq: undefined,
  incarnation: undefined,
  redeliveries
})
const subscription = Subscription.make({
  topic: Topic.records("t", { key: () => "k", value: { seq: Schema.Int } }),
  name: "s",
  type: "keyShared",
  redeliveryDelayMs: 0,
  ackTimeoutMs: 10
})
/** Runs the subscription, whose message 1 fails the first time. The return of lost messages waits for `returning`. */
const start = Effect.gen(function* () {
  const [arrived, returning] = [Latch.makeUnsafe(false), Latch.makeUnsafe(false)]
  let waiting: Array<Message> = []
  const seen = { receives: 0, returned: [] as Array<ReadonlyArray<number>>, handled: [] as Array<number> }
  const fanOut = FanOut.of({
    subscribe: () =>
      Effect.succeed({
        receive: () =>
          Effect.suspend(() => {
            seen.receives++
            return Effect.map(arrived.await, () => {
              arrived.closeUnsafe()
              return waiting
            })
          }),
        acknowledge: () => Effect.void,
        negativeAcknowledge: (messages) =>
          Effect.suspend(() => {
            seen.returned.push(messages.map(({ position }) => position))
            return seen.returned.length === 1 ? Effect.void : returning.await
          }),
        deadLetter: () => Effect.void
      }),
    seek: () => Effect.void,
    unsubscribe: () => Effect.void
  })
  /** Delivers messages, and returns once the subscription asks for more. */
  const deliver = Effect.fnUntraced(function* (...messages: ReadonlyArray<Message>) {
    yield* until(() => seen.receives > 0 && !arrived.isOpen())
    const before = seen.receives
    waiting = [...messages]
    arrived.openUnsafe()
    yield* until(() => seen.receives > before)
  })
  const run = Subscription.run(subscription, ({ seq }, { redeliveries }) =>
    Effect.suspend(() => {
      if (seq === 1 && redeliveries === 0) return Effect.fail("no")
      seen.handled.push(seq)
      return Effect.void
    })
  )
  yield* Effect.forkScoped(
    run.pipe(Effect.provideService(FanOut, fanOut), Effect.provideService(References.MinimumLogLevel, "None"))
  )
  // 1 fails, 2 waits for it, and 1 is not redelivered in time
  yield* deliver(messageOf(1), messageOf(2))
  yield* until(() => seen.returned.length === 2)
  assert.deepStrictEqual(seen.returned, [[1], [1, 2]])
  return { deliver, returning, seen }
})

describe("messages of a key that were not redelivered in time", () => {
  it.live("are not overtaken by one that arrives while they are returned: it is returned, too", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { deliver, returning, seen } = yield* start
        yield* deliver(messageOf(3))
        returning.openUnsafe()
        yield* until(() => seen.returned.length === 3 || seen.handled.length > 0)
        assert.deepStrictEqual(seen.returned.slice(2), [[3]])
        yield* deliver(messageOf(1, 2), messageOf(2, 1), messageOf(3, 1))
        yield* until(() => seen.handled.length === 3)
        assert.deepStrictEqual(seen.handled, [1, 2, 3])
      })
    )
  )
  it.live("are handled in order if they are redelivered while they are returned", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { deliver, returning, seen } = yield* start
        yield* deliver(messageOf(1, 1), messageOf(2, 1), messageOf(3))
        assert.deepStrictEqual(seen.handled, [])
        returning.openUnsafe()
        yield* until(() => seen.handled.length === 3)
        assert.deepStrictEqual(seen.handled, [1, 2, 3])
        assert.lengthOf(seen.returned, 2)
      })
    )
  )
})
