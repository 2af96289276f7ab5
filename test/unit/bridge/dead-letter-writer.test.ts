// Which producers write the dead letters of messages whose positions do not fit into a number that ascends with them, against a fake of Pulsar.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { NumberedRecord, PulsarSide } from "../../../src/bridge/pulsar-side.ts"
import { DeadLetterWriter } from "../../../src/bridge/dead-letter-writer.ts"
import { type PulsarPosition, formatPosition } from "../../../src/bridge/pulsar-position.ts"

const position = (ledger: number, entry = 0): PulsarPosition => ({ ledger, entry, batch: -1, batchSize: 1 })
const deadLetter = (at: PulsarPosition) =>
  [at, { key: null, value: formatPosition(at), eventTime: 1, headers: {} }] as const
const owner = { bridge: "b", rule: "r", stream: "s" }
const unused = Effect.die("not used by this test")

it.effect(
  "dead letters of messages in large ledgers share one more producer, and sequence numbers ascend within each producer",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const sent = new Map<string, Array<number>>()
        const pulsar: PulsarSide = {
          ping: unused,
          topics: () => unused,
          partitionsOf: (topic) => Effect.succeed([`${topic}-partition-0`]),
          produce: (part, name) =>
            Effect.sync(() => {
              const numbers: Array<number> = []
              sent.set(`${part} ${name}`, numbers)
              const send = (messages: ReadonlyArray<NumberedRecord>) => {
                numbers.push(...messages.map(({ sequenceId }) => sequenceId))
                return Effect.succeed(messages.map(() => ({ kind: "stored", position: position(1) }) as const))
              }
              return { send }
            }),
          scan: () => Effect.void,
          consume: () => unused,
          lastPosition: () => unused,
          backlog: () => unused
        }
        const writer = new DeadLetterWriter({ pulsar, topic: "dead", owner, name: "bridge", after: undefined })
        for (const ledger of [3, 2 ** 22, 2 ** 22 + 1, 2 ** 23]) {
          yield* writer.write([deadLetter(position(ledger)), deadLetter(position(ledger, 1))])
        }
        yield* writer.write([deadLetter(position(4))])
        const [named, counting, ...more] = [...sent]
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
      })
    )
)
