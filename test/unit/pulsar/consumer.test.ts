// A consumer on Pulsar over a transport that loses its connection while messages are under way: none of them overtakes another one.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { PulsarConsumer } from "../../../src/pulsar/subscription/consumer.ts"
import type { ConsumeOptions, Received, Transport } from "../../../src/pulsar/client/transport.ts"

const received = (seq: number): Received => ({
  id: { ledger: 1, entry: seq, batch: -1, batchSize: 1 },
  handle: seq,
  key: "k",
  value: String(seq),
  eventTime: 1,
  publishTime: 1,
  properties: { "millrace-seq": String(seq) },
  redeliveries: 0
})

/** A connection as the test sees it: what the consumer gave, whether it was closed, and how to let the consumer have it. */
interface Connection extends ConsumeOptions {
  closed: boolean
  readonly connected: () => void
}
/**
 * A consumer whose connections the test controls, and a function that receives until there are so many messages. `waits`: the numbers of the connections
 * that the consumer gets only once the test says so.
 */
const consumerOf = (
  type: "exclusive" | "failover" | "shared",
  { ackTimeoutMs = 60_000, partitions = 1, waits = [] as ReadonlyArray<number> } = {}
) => {
  const connections: Array<Connection> = []
  const transport: Pick<Transport, "consume"> = {
    consume: async (options) => {
      const { promise, resolve } = Promise.withResolvers<void>()
      const connection: Connection = { ...options, closed: false, connected: resolve }
      if (!waits.includes(connections.push(connection) - 1)) resolve()
      await promise
      const done = async () => undefined
      const close = async () => void (connection.closed = true)
      return { ask: () => undefined, acknowledge: done, negativeAcknowledge: done, close }
    }
  }
  const settings = { topic: "t", name: "s", type, from: "earliest", receiveQueue: 100, ackTimeoutMs } as const
  const delays = { redeliveryDelayMs: 100, maxRedeliveryDelayMs: 100, maxRedeliveries: 5, deadLetterTopic: "t.dlq" }
  const consumer = new PulsarConsumer({
    transport: transport as Transport,
    settings: { ...settings, ...delays },
    name: "c",
    topics: Array.from({ length: partitions }, (_, i) => `persistent://public/default/t-partition-${i}`),
    sendDeadLetter: async () => undefined,
    typeOf: async () => type
  })
  const take = Effect.fnUntraced(function* (count: number) {
    const seqs: Array<number | undefined> = []
    while (seqs.length < count) seqs.push(...(yield* consumer.receive(10)).map(({ seq }) => seq))
    return seqs
  })
  return { consumer, connections, take }
}

describe.each(["exclusive", "failover"] as const)("the only consumer of a subscription: %s", (type) => {
  it.live("delivers in order if another message arrives on a lost connection that the transport restores", () =>
    Effect.gen(function* () {
      const { connections, consumer, take } = consumerOf(type)
      yield* Effect.promise(() => consumer.open())
      const { arrived, lost, recovered } = connections[0]!
      for (const seq of [1, 2]) arrived(received(seq))
      lost(new Error("cut"), false)
      arrived(received(3))
      // another consumer may be active meanwhile
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(take(1), 50)))
      recovered()
      for (const seq of [1, 2, 3, 4]) arrived(received(seq))
      assert.deepStrictEqual(yield* take(4), [1, 2, 3, 4])
      yield* Effect.promise(() => consumer.close())
    })
  )

  it.live("delivers no message that arrives on a connection that was given up", () =>
    Effect.gen(function* () {
      const { connections, consumer, take } = consumerOf(type)
      yield* Effect.promise(() => consumer.open())
      const { arrived, lost } = connections[0]!
      for (const seq of [1, 2]) arrived(received(seq))
      lost(new Error("away"), true)
      arrived(received(3))
      while (connections.length < 2) yield* Effect.sleep(1)
      for (const seq of [1, 2, 3, 4]) connections[1]!.arrived(received(seq))
      assert.deepStrictEqual(yield* take(4), [1, 2, 3, 4])
      yield* Effect.promise(() => consumer.close())
    })
  )
})

describe("a shared consumer", () => {
  it.live("that gave its messages to others while it reconnected closes the connection that comes late", () =>
    Effect.gen(function* () {
      const { connections, consumer, take } = consumerOf("shared", { ackTimeoutMs: 50, waits: [1] })
      yield* Effect.promise(() => consumer.open())
      connections[0]!.arrived(received(1))
      assert.deepStrictEqual(yield* take(1), [1])
      connections[0]!.lost(new Error("cut"), true)
      // what it holds is released, and it connects again while the first try to reconnect is under way
      const taking = yield* Effect.forkChild(take(1))
      while (connections.length < 3) yield* Effect.sleep(1)
      connections[1]!.connected()
      while (!connections[1]!.closed) yield* Effect.sleep(1)
      // it is no consumer's any more
      connections[1]!.arrived(received(2))
      connections[2]!.arrived(received(3))
      assert.deepStrictEqual(yield* Fiber.join(taking), [3])
      assert.deepStrictEqual(
        connections.map(({ closed }) => closed),
        [true, true, false]
      )
      yield* Effect.promise(() => consumer.close())
    })
  )

  it.live("connects again to a partition that it loses while it connects to the next one", () =>
    Effect.gen(function* () {
      const { connections, consumer, take } = consumerOf("shared", { partitions: 2, waits: [1] })
      const opening = consumer.open()
      while (connections.length < 2) yield* Effect.sleep(1)
      connections[0]!.lost(new Error("cut"), true)
      connections[1]!.connected()
      yield* Effect.promise(() => opening)
      while (connections.length < 3) yield* Effect.sleep(1)
      assert.strictEqual(connections[2]!.topic, connections[0]!.topic)
      yield* Effect.sleep(1)
      connections[2]!.arrived(received(1))
      assert.deepStrictEqual(yield* take(1), [1])
      yield* Effect.promise(() => consumer.close())
    })
  )
})
