// `millrace rebuild --from` and `--keys` on real Kafka: positions by the times at which Kafka stored records, and the rows of some keys.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { shared } from "../../../stack/testing.ts"
import { Agg, Application, Projection, Topic, Window } from "../../../src/index.ts"
import { selectionOf } from "../../../src/system/key-selection.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { beginRebuild, cancelRebuild, rebuild } from "../../../src/system/rebuild.ts"
import { planKeys, rebuildKeys } from "../../../src/system/rebuild-keys.ts"
import { beginAt } from "../../../src/system/rebuild-until.ts"
import { Presence } from "../../../src/system/presence.ts"
import { groupNames, type System } from "../../../src/system/system.ts"
import { append, run, settled } from "../../support/engine.ts"
import { kafkaEngine } from "../../support/kafka-engine.ts"
import { server } from "../../support/postgres.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("kafka")
const scope = Scope.makeUnsafe()
let postgres = ""
let brokers: ReadonlyArray<string> = []

const id = `${process.pid}-${Date.now()}`
const payments = Topic.records(`parts-${id}`, {
  value: { id: Schema.String, who: Schema.String, at: Schema.Int },
  id: "id",
  key: "who",
  eventTime: "at",
  partitions: 3
})
const paid = Window.global("paid", { key: { who: Schema.String }, aggregate: { payments: Agg.count } })
const state = { isFaulty: true }
const counting = Projection.make({
  name: `counting_${process.pid}`,
  version: 1,
  source: payments,
  writes: [paid],
  handle: ({ who }, out) => out.add(paid, { who, payments: state.isFaulty ? 2 : 1 })
})
const application = Application.make({ name: "parts", projections: [Projection.async(counting)] })
const noLimits = { rate: undefined, maxLiveLagMs: undefined }
const noReport = { report: () => Effect.void, onRetry: () => Effect.void, onBuild: () => Effect.void }

suite("On Kafka", () => {
  beforeAll(async () => {
    postgres = await Effect.runPromise(Scope.provide(server, scope))
    brokers = (await Effect.runPromise(Scope.provide(shared("kafka"), scope))).MILLRACE_KAFKA_BROKERS!.split(",")
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  it.live(
    "a rebuild begins at the records that Kafka stored at a time or later, and one of keys changes their rows alone",
    () =>
      Effect.gen(function* () {
        const made = yield* kafkaEngine(brokers, postgres, { ...application, services: undefined })
        const { sql } = made
        const presence = new Presence()
        yield* presence.announce(sql)
        const system = { ...made, database: { sql }, groups: groupNames(undefined), presence } as unknown as System
        const payment = (i: number) => ({ id: `${i}`, who: `p${i % 6}`, at: Date.now() })
        const counts = (build: number) =>
          query("counts", async () => {
            const rows = await sql.unsafe<Array<{ text: string }>>(
              `select who || ' ' || payments as text from ${counting.name}_v${build}.paid order by 1`
            )
            return rows.map(({ text }) => text)
          })
        yield* append(
          made,
          payments,
          Array.from({ length: 30 }, (_, i) => payment(i))
        )
        yield* Effect.sleep("50 millis")
        const begin = yield* beginAt(made.log, counting, Date.now())
        yield* Effect.sleep("50 millis")
        yield* append(
          made,
          payments,
          Array.from({ length: 12 }, (_, i) => payment(i))
        )
        const stop = yield* run(made)
        yield* settled(made)
        yield* stop
        const all = (n: number) => ["p0", "p1", "p2", "p3", "p4", "p5"].map((who) => `${who} ${n}`)
        assert.deepStrictEqual(yield* counts(1), all(14))
        state.isFaulty = false

        const later = yield* beginRebuild(system, counting.name, noLimits, { begin })
        assert.deepInclude(yield* rebuild(system, later, noReport), { build: 2, events: 12 })
        assert.deepStrictEqual(yield* counts(2), all(2))
        yield* cancelRebuild(sql, counting.name)

        const keys = selectionOf(["p1", "p4", "p9"])
        const context = { application, sql, log: made.log }
        const { plan, scanned } = yield* planKeys(context, counting.name, undefined, keys, () => Effect.void)
        assert.deepStrictEqual(plan.keys, { given: 3, found: 2, unknown: 1, events: 14 })
        const rebuilt = yield* rebuildKeys(system, counting.name, noLimits, { keys, scanned }, noReport)
        assert.deepInclude(rebuilt, { build: 3, live: 1, tables: [{ name: "paid", removed: 2, inserted: 2 }] })
        assert.deepStrictEqual(yield* counts(3), ["p0 14", "p1 7", "p2 14", "p3 14", "p4 7", "p5 14"])
      }).pipe(Effect.scoped),
    60_000
  )
})
