// A consumer on Pulsar over a transport that loses its connection while messages are under way: none of them overtakes another one.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
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

/** A consumer whose connections the test controls, and a function that receives until there are so many messages. */
const consumerOf = (type: "exclusive" | "failover") => {
  const connections: Array<ConsumeOptions> = []
  const transport: Pick<Transport, "consume"> = {
    consume: async (options) => {
      connections.push(options)
      const done = async () => undefined
      return { ask: () => undefined, acknowledge: done, negativeAcknowledge: done, close: done }
    }
  }
  const settings = { topic: "t", name: "s", type, from: "earliest", receiveQueue: 100, ackTimeoutMs: 60_000 } as const
  const delays = { redeliveryDelayMs: 100, maxRedeliveryDelayMs: 100, maxRedeliveries: 5, deadLetterTopic: "t.dlq" }
  const consumer = new PulsarConsumer({
    transport: transport as Transport,
    settings: { ...settings, ...delays },
    name: "c",
    topics: ["persistent://public/default/t"],
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
