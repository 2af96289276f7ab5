// How a relay's lanes are shared, run, rested and fenced, over lanes and an outbox that are plain values.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import { LaneLease, type LaneOptions, LaneShare, type RelayLane } from "../../../src/relay/lanes.ts"
import type { LaneClaims, LaneGrouping, MirroredPosition, Outbox } from "../../../src/relay/outbox.ts"
import { RelayError } from "../../../src/relay/target.ts"

// warnings about lanes that fail are expected
const quietly = Effect.provideService(References.MinimumLogLevel, "Error")

const failure = (reason: string, retryable = true) =>
  new RelayError({ target: "t", operation: "publish", retryable, reason })

/** A share of lanes, what it did to them, in order, and what the database returns to it next. */
const setUp = (options: Partial<LaneOptions<RelayLane & { readonly number: number }>> = {}) => {
  const done: Array<string> = []
  const database = {
    grouping: { generation: 1, lanes: 2, ids: ["a", "b"], fenced: true } as LaneGrouping,
    claims: { held: [0, 1], surplus: 0 } as LaneClaims
  }
  const rounds = new Map<number, Effect.Effect<{ messages: number; more: boolean }, RelayError>>()
  const share = new LaneShare({
    target: "t",
    outbox: { streams: () => Effect.succeed<ReadonlyArray<MirroredPosition>>([]) } as unknown as Outbox["Service"],
    lanes: {
      grouping: Effect.sync(() => database.grouping),
      fenced: (generation) => Effect.sync(() => void done.push(`fenced ${generation}`)),
      claim: () =>
        Effect.sync(() => {
          done.push("claim")
          return database.claims
        }),
      release: (lane) => Effect.sync(() => void done.push(`release ${lane}`))
    },
    lease: new LaneLease(Infinity),
    open: (number) => {
      done.push(`open ${number}`)
      return {
        number,
        halted: [],
        round: () =>
          Effect.suspend(() => {
            done.push(`round ${number}`)
            return rounds.get(number) ?? Effect.succeed({ messages: 1, more: false })
          })
      }
    },
    close: ({ number }) => Effect.sync(() => void done.push(`close ${number}`)),
    takeOver: undefined,
    usesPositions: false,
    roundMs: 0,
    paceMs: 0,
    ...options
  })
  const taken = () => done.splice(0)
  return { share, database, rounds, taken }
}

it.live("claims lanes once and runs a round of each, and releases those that belong to other processes", () =>
  Effect.gen(function* () {
    const { database, share, taken } = setUp()
    assert.deepStrictEqual(yield* quietly(share.publish()), { messages: 2, more: false, halted: [] })
    assert.deepStrictEqual(taken(), ["claim", "open 0", "open 1", "round 0", "round 1"])
    yield* quietly(share.publish())
    assert.deepStrictEqual(taken(), ["round 0", "round 1"])
    database.claims = { held: [0, 1], surplus: 1 }
    // the next claim is due a second after the last one
    yield* Effect.sleep(1_010)
    yield* quietly(share.publish())
    assert.deepStrictEqual(taken(), ["round 0", "round 1", "claim", "close 1", "release 1"])
    yield* share.close()
    assert.deepStrictEqual(taken(), ["close 0"])
  })
)

it.live("a lane that failed rests while others go on, and lanes are claimed again first", () =>
  Effect.gen(function* () {
    const { rounds, share, taken } = setUp()
    rounds.set(1, Effect.fail(failure("no broker")))
    assert.deepStrictEqual(yield* quietly(share.publish()), { messages: 1, more: false, halted: [] })
    taken()
    rounds.delete(1)
    yield* quietly(share.publish())
    assert.deepStrictEqual(taken(), ["claim", "round 0"])
    yield* Effect.sleep(60)
    yield* quietly(share.publish())
    assert.deepStrictEqual(taken(), ["round 0", "round 1"])
  })
)

it.live("fails if all lanes fail, and if one has a defect", () =>
  Effect.gen(function* () {
    const { rounds, share } = setUp()
    for (const lane of [0, 1]) rounds.set(lane, Effect.fail(failure(`lane ${lane}`)))
    assert.strictEqual((yield* Effect.flip(quietly(share.publish()))).reason, "lane 0")
    const other = setUp()
    other.rounds.set(1, Effect.die(new Error("a defect")))
    assert.isTrue(Exit.hasDies(yield* Effect.exit(quietly(other.share.publish()))))
  })
)

it.live("a lane that has more runs rounds for a limited time", () =>
  Effect.gen(function* () {
    const { rounds, share, taken } = setUp({ roundMs: 30 })
    rounds.set(0, Effect.as(Effect.sleep(8), { messages: 1, more: true }))
    const { messages, more } = yield* quietly(share.publish())
    assert.isTrue(more)
    const count = taken().filter((what) => what === "round 0").length
    assert.isAbove(count, 1)
    assert.isBelow(count, 6)
    assert.strictEqual(messages, count + 1)
  })
)

it.live(
  "after a change of the number of lanes, all lanes are closed and every producer id is taken over before any runs",
  () =>
    Effect.gen(function* () {
      const took: Array<ReadonlyArray<string>> = []
      const { database, rounds, share, taken } = setUp({ takeOver: (ids) => Effect.sync(() => void took.push(ids)) })
      yield* quietly(share.publish())
      taken()
      database.grouping = { generation: 2, lanes: 3, ids: ["a", "b", "c"], fenced: false }
      database.claims = { held: [2], surplus: 0 }
      rounds.set(0, Effect.fail(failure("the number of lanes was changed")))
      rounds.set(1, Effect.fail(failure("the number of lanes was changed")))
      yield* Effect.exit(quietly(share.publish()))
      taken()
      yield* quietly(share.publish())
      assert.deepStrictEqual(taken(), ["close 0", "close 1", "claim", "fenced 2", "open 2", "round 2"])
      assert.deepStrictEqual(took, [["a", "b", "c"]])
    })
)

it.live("after its lease lapsed, all lanes are closed before they are claimed again", () =>
  Effect.gen(function* () {
    const { share, taken } = setUp({ lease: new LaneLease(20) })
    yield* quietly(share.publish())
    taken()
    yield* Effect.sleep(30)
    yield* quietly(share.publish())
    assert.deepStrictEqual(taken(), ["close 0", "close 1", "claim", "open 0", "open 1", "round 0", "round 1"])
  })
)

it.live("a process without lanes looks for some every 100 ms, however often it is woken", () =>
  Effect.gen(function* () {
    const { database, share, taken } = setUp()
    database.claims = { held: [], surplus: 0 }
    for (let i = 0; i < 20; i++) yield* quietly(share.publish())
    assert.deepStrictEqual(taken(), ["claim"])
    yield* Effect.sleep(110)
    database.claims = { held: [1], surplus: 0 }
    yield* quietly(share.publish())
    assert.deepStrictEqual(taken(), ["claim", "open 1", "round 1"])
  })
)
