// Which producers write the dead letters of a bridge stream, and that each is written once, against a fake of Pulsar that drops duplicates.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { errorHeader, nameHeader, offsetHeader, ruleHeader, streamHeader } from "../../../src/bridge/headers.ts"
import type { NumberedRecord, PulsarSide, SendResult } from "../../../src/bridge/pulsar-side.ts"
import type { BridgeRecord } from "../../../src/bridge/record.ts"
import { DeadLetterWriter } from "../../../src/bridge/dead-letter-writer.ts"
import { comparePositions, type PulsarPosition, formatPosition } from "../../../src/bridge/pulsar-position.ts"

const position = (ledger: number, entry = 0): PulsarPosition => ({ ledger, entry, batch: -1, batchSize: 1 })
const owner = { bridge: "b", rule: "r", stream: "s" }
const headersOf = (at: PulsarPosition) => ({
  [errorHeader]: "refused",
  [nameHeader]: owner.bridge,
  [ruleHeader]: owner.rule,
  [streamHeader]: owner.stream,
  [offsetHeader]: formatPosition(at)
})
const deadLetter = (at: PulsarPosition) =>
  [at, { key: null, value: formatPosition(at), eventTime: 1, headers: headersOf(at) }] as const
const unused = Effect.die("not used by this test")

/** A topic on a broker that drops what a producer's name sends at or below its last number. */
class Broker {
  /** The records, in order. The position of each is its index. */
  readonly stored: Array<BridgeRecord> = []
  /** The numbers that each producer sent. */
  readonly sent = new Map<string, Array<number>>()
  private readonly last = new Map<string, number>()

  /** Forgets which numbers producers have sent, as a broker does some time after they are gone. */
  forget() {
    this.last.clear()
  }
  /** The positions of messages that have a dead letter, in its order. */
  get deadLetters() {
    return this.stored.map(({ value }) => value)
  }
  private take(name: string, { record, sequenceId }: NumberedRecord): SendResult {
    if (sequenceId <= (this.last.get(name) ?? -1)) return { kind: "duplicate" }
    this.last.set(name, sequenceId)
    return { kind: "stored", position: position(1, this.stored.push(record) - 1) }
  }
  readonly side: PulsarSide = {
    ping: unused,
    topics: () => unused,
    partitionsOf: (topic) => Effect.succeed([`${topic}-partition-0`]),
    produce: (part, name) =>
      Effect.sync(() => {
        const numbers: Array<number> = []
        this.sent.set(`${part} ${name}`, numbers)
        const send = (messages: ReadonlyArray<NumberedRecord>) => {
          numbers.push(...messages.map(({ sequenceId }) => sequenceId))
          return Effect.succeed(messages.map((message) => this.take(name, message)))
        }
        return { send }
      }),
    scan: (_part, after, take) =>
      Effect.sync(() => {
        for (const [i, record] of this.stored.entries()) {
          const at = position(1, i)
          if (after === undefined || comparePositions(at, after) > 0) take({ position: at, record, publishTime: 0 })
        }
      }),
    consume: () => unused,
    lastPosition: () => unused,
    backlog: () => unused
  }
  /** The writer of a new session. */
  writer(after?: PulsarPosition) {
    return new DeadLetterWriter({ pulsar: this.side, topic: "dead", owner, name: "bridge", after })
  }
}
const [first, second, third, fourth] = [position(14, 410), position(14, 415), position(14, 426), position(15)]

it.effect(
  "dead letters of messages in large ledgers share one more producer, and sequence numbers ascend within each producer",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const broker = new Broker()
        const writer = broker.writer()
        for (const ledger of [3, 4, 2 ** 22, 2 ** 22 + 1, 2 ** 23])
          yield* writer.write([deadLetter(position(ledger)), deadLetter(position(ledger, 1))])
        const [named, counting, ...more] = [...broker.sent]
        assert.lengthOf(more, 0)
        assert.strictEqual(named![0], "dead-partition-0 bridge")
        assert.match(counting![0], /^dead-partition-0 bridge\//)
        for (const [, numbers] of [named!, counting!]) {
          assert.deepStrictEqual(
            numbers,
            numbers.toSorted((a, b) => a - b)
          )
          assert.lengthOf([...new Set(numbers)], numbers.length)
        }
        assert.lengthOf(counting![1], 6)
        assert.lengthOf(broker.stored, 10)
      })
    )
)

for (const [when, isAgain] of [
  ["in the same session", false],
  ["in the next one", true]
] as const)
  it.effect(`the dead letter of a message before others that have one already is stored ${when}`, () =>
    Effect.scoped(
      Effect.gen(function* () {
        const broker = new Broker()
        let writer = broker.writer()
        yield* writer.write([deadLetter(second), deadLetter(third)])
        // Kafka rejects the transaction because of the first message
        if (isAgain) writer = broker.writer()
        yield* writer.write([deadLetter(first)])
        yield* writer.write([second, third, fourth].map(deadLetter))
        assert.deepStrictEqual(broker.deadLetters, [second, third, first, fourth].map(formatPosition))
      })
    )
  )

it.effect(
  "dead letters ahead of the position are found by the next session, also when the broker has forgotten the producer",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const broker = new Broker()
        const rejected = broker.writer()
        yield* rejected.write([deadLetter(second), deadLetter(third)])
        const committed = broker.writer()
        yield* committed.write([deadLetter(first)])
        const after = committed.endFor(first)
        assert.strictEqual(after, undefined)
        broker.forget()
        const next = broker.writer(after)
        yield* next.write([second, third, fourth].map(deadLetter))
        assert.deepStrictEqual(broker.deadLetters, [second, third, first, fourth].map(formatPosition))
        // everything there is of messages that the position has passed
        assert.deepStrictEqual(next.endFor(fourth), position(1, 3))
      })
    )
)

it.effect("a position between two dead letters keeps the scan where it was, and one behind them moves it", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const broker = new Broker()
      const writer = broker.writer()
      yield* writer.write([deadLetter(first)])
      const start = writer.endFor(first)
      assert.deepStrictEqual(start, position(1, 0))
      yield* writer.write([second, third].map(deadLetter))
      assert.deepStrictEqual(writer.endFor(second), start)
      assert.deepStrictEqual(writer.endFor(third), position(1, 2))
      assert.deepStrictEqual(broker.writer(start).endFor(fourth), start)
    })
  )
)
