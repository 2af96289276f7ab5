// Channels of the relay to Pulsar whose marks nobody writes down: they lose connections, give the topic to another one and get it back. Every
// message is there once, in order, and no stream halts.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { shared } from "../../../../stack/testing.ts"
import { type Cluster, connect } from "../../../../src/pulsar/client/cluster.ts"
import { Channel } from "../../../../src/pulsar/relay/channel.ts"
import type { TransportProducer } from "../../../../src/pulsar/client/transport.ts"
import { optionsOf } from "../../../support/pulsar.ts"
import { channelMessage, makeTenant, messagesOf, withProduce } from "../../../support/relay-pulsar.ts"
import { needing, testOverTransports } from "../../../support/stack.ts"
import { until } from "../../../support/until.ts"

/** More than any of the two interfaces takes. */
const tooLarge = "x".repeat(6_000_000)

/** A channel of a stream, and what became of its messages. */
const channelOn = (cluster: Cluster, name: string, topic: string) => {
  const made: Array<TransportProducer> = []
  const watched = withProduce(cluster, async (options) => {
    const producer = await cluster.transport.produce(options)
    made.push(producer)
    return producer
  })
  const became = new Map<number, string | undefined>()
  const told: Array<string> = []
  const channel = new Channel(
    {
      cluster: watched,
      stream: "s",
      name,
      from: 0,
      batching: false,
      // as it was when the stream first came there
      recordedPosition: (initial) => Promise.resolve({ ...initial, place: "" }),
      inTurn: (run) => run(),
      holds: () => true,
      done: ({ seq }, reason) => {
        if (became.has(seq)) told.push(`message ${seq} is done twice`)
        became.set(seq, reason)
      },
      halt: (reason) => told.push(reason)
    },
    topic
  )
  return {
    push: (from: number, to: number, refused: number) => {
      for (let seq = from; seq <= to; seq++)
        channel.push([channelMessage(topic, seq, seq === refused ? tooLarge : undefined)])
    },
    /** Waits until so many are done. */
    reaches: Effect.fnUntraced(function* (count: number) {
      yield* until(() => became.size >= count || told.length > 0)
      assert.deepStrictEqual(told, [])
    }),
    refused: () => [...became].flatMap(([seq, reason]) => (reason === undefined ? [] : [seq])),
    lose: Effect.promise(async () => made.at(-1)?.close()),
    close: Effect.promise(() => channel.close())
  }
}
const sequencesIn = (cluster: Cluster, topic: string) =>
  Effect.promise(async () =>
    (await messagesOf(cluster, topic)).map(({ properties }) => Number(properties["millrace-seq"]))
  )

const suite = await needing("pulsar")
suite("channels of the relay to Pulsar", () => {
  testOverTransports(
    "go on from what they know though it is not written down: %s",
    (transport) =>
      Effect.gen(function* () {
        const cluster = yield* connect(optionsOf(transport, yield* shared("pulsar")))
        const name = `reconnect${process.pid}-${transport}`
        yield* Effect.promise(() => makeTenant(cluster, name))
        const topic = `persistent://${name}/alerts/alerts`
        const first = channelOn(cluster, name, topic)
        first.push(1, 2_000, 50)
        for (let reached = 400; reached <= 2_000; reached += 400) {
          yield* first.reaches(reached)
          yield* first.lose
        }
        // it notices nothing until it sends again: another one takes the stream over, and gives it back
        const second = channelOn(cluster, name, topic)
        second.push(1, 3_000, 2_500)
        yield* second.reaches(3_000)
        yield* second.close
        first.push(2_001, 4_000, 2_500)
        yield* first.reaches(4_000)
        yield* first.close
        assert.deepStrictEqual(first.refused(), [50, 2_500])
        assert.deepStrictEqual(second.refused(), [50, 2_500])
        const all = Array.from({ length: 4_000 }, (_, i) => i + 1)
        assert.deepStrictEqual(
          yield* sequencesIn(cluster, topic),
          all.filter((seq) => seq !== 50 && seq !== 2_500)
        )
      }).pipe(Effect.scoped),
    120_000
  )
})
