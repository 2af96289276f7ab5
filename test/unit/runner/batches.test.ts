// What becomes of events does not depend on where batches end: random projections and events in one batch, singly, and in random batches.
import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import { appendTo, Batches, recordsOf, type Partitions } from "../../support/in-batches.ts"
import { knownUsers, randomEvents, randomProjection, randomVariant } from "../../support/random-projection.ts"
import { randomOf, seed } from "../../support/random.ts"
import { isLong } from "../../support/size.ts"

const play = Effect.fnUntraced(function* (
  number: number,
  sizeOf: (int: (low: number, high: number) => number) => number
) {
  const random = randomOf(number)
  const partitions = random.int(1, 3)
  const variant = randomVariant(random)
  const { known, projection, second, source, state } = randomProjection(random, partitions, variant)
  const events = randomEvents(random, random.int(20, 150), variant).map((event) =>
    random.chance(0.02) ? Object.assign({}, event, { friend: 5 }) : event
  )
  const wanted = Array.from({ length: 1_000 }, () => random.int(0, 2))
  const of: Partitions = new Map()
  for (const topic of variant.hasTwoSources ? [source, second] : [source])
    appendTo(
      of,
      topic.name,
      recordsOf(
        topic,
        events.filter(({ type }) => topic.types!.includes(type)),
        partitions
      )
    )
  const { int } = randomOf(number + 1)
  const batches = new Batches(projection, partitions, () => sizeOf(int))
  batches.engine.seed(known, knownUsers)
  yield* batches.process(of)
  const first = batches.outcome()
  // some are retried, some twice, and then fail as before or no more
  state.isFixed = random.chance(0.5)
  for (const times of [1, 2]) {
    const retries = batches.retries(projection.name, (position) => wanted[position]! >= times)
    for (const [topic, record] of retries) appendTo(of, topic, [record])
  }
  yield* batches.process(of)
  return [first, batches.outcome()] as const
})

const runs = Number(process.env["MILLRACE_TEST_RUNS"] ?? (isLong ? 400 : 20))
describe("the outcome is the same in one batch, event by event and in random batches", () => {
  for (let run = 0; run < runs; run++) {
    test(`run ${run}, seed ${seed}`, async () => {
      const number = seed + 7 * run
      const singly = await Effect.runPromise(play(number, () => 1))
      expect(await Effect.runPromise(play(number, () => 10_000))).toEqual(singly)
      expect(await Effect.runPromise(play(number, (int) => int(1, 12)))).toEqual(singly)
    })
  }
})
