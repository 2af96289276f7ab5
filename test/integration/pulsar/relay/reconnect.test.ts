// Channels of the relay to Pulsar whose positions are never recorded lose connections, lose the topic to another channel, and get it back. Every message
// arrives once and in order, and no stream halts.
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

/** More than either interface accepts. */
const tooLarge = "x".repeat(6_000_000)

/** A channel of a stream, and the outcome of its messages. */
const channelOn = (cluster: Cluster, name: string, topic: string) => {
  const made: Array<TransportProducer> = []
  const watched = withProduce(cluster, async (options) => {
    const producer = await cluster.transport.produce(options)
    made.push(producer)
    return producer
  })
  const became = new Map<number, string | undefined>()
  const errors: Array<string> = []
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
      failed: () => {},
      done: ({ seq }, reason) => {
        if (became.has(seq)) errors.push(`message ${seq} is done twice`)
        became.set(seq, reason)
      },
      halt: (reason) => errors.push(reason)
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
      yield* until(() => became.size >= count || errors.length > 0)
      assert.deepStrictEqual(errors, [])
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
    "continue from positions that were never recorded: %s",
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
        // the first channel notices nothing until it sends again: another one takes the stream over, and leaves it
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
