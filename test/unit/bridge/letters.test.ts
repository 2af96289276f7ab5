// Dead letters whose places are too large for a number that ascends with them: which producers they take. Pulsar itself is in the integration tests.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Numbered, PulsarEnd } from "../../../src/bridge/ends.ts"
import { Letters } from "../../../src/bridge/dead-letter-writer.ts"
import { type Place, placeText } from "../../../src/bridge/names.ts"

const place = (ledger: number, entry = 0): Place => ({ ledger, entry, batch: -1, batchSize: 1 })
const letter = (at: Place) => [at, { key: null, value: placeText(at), eventTime: 1, headers: {} }] as const
const of = { bridge: "b", rule: "r", stream: "s" }
const unused = Effect.die("not asked for")

it.effect("letters of large ledgers share one producer, and numbers ascend within each", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const sent = new Map<string, Array<number>>()
      const pulsar: PulsarEnd = {
        answers: unused,
        topics: () => unused,
        parts: (topic) => Effect.succeed([`${topic}-partition-0`]),
        produce: (part, name) =>
          Effect.sync(() => {
            const numbers: Array<number> = []
            sent.set(`${part} ${name}`, numbers)
            const send = (messages: ReadonlyArray<Numbered>) => {
              numbers.push(...messages.map(({ sequenceId }) => sequenceId))
              return Effect.succeed(messages.map(() => ({ kind: "stored", place: place(1) }) as const))
            }
            return { send }
          }),
        scan: () => Effect.void,
        consume: () => unused,
        end: () => unused,
        backlog: () => unused
      }
      const letters = new Letters({ pulsar, topic: "dead", of, name: "bridge", after: undefined })
      for (const ledger of [3, 2 ** 22, 2 ** 22 + 1, 2 ** 23]) {
        yield* letters.send([letter(place(ledger)), letter(place(ledger, 1))])
      }
      yield* letters.send([letter(place(4))])
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
