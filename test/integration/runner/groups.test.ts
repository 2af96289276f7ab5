// Processes of one database in consumer groups of two names, as while the release that renamed the groups is rolled out.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { query } from "../../../src/postgres/client/client.ts"
import { applicationOf } from "../../support/named-applications.ts"
import { another, append, engine, run, settled } from "../../support/engine.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const application = applicationOf("shop", "orders", { publishes: true })
const [topic] = application.projections[0]!.projection.sources
const upgraded = { prefix: "shop/0a1b2c3d/", epoch: 1 }

it.live(
  "members of the newer group keep the partitions that they claim, whatever the older group does, and every event is published once",
  () =>
    Effect.gen(function* () {
      const first = yield* engine(root, application)
      const { sql } = first
      let sent = 0
      const send = Effect.fnUntraced(function* () {
        yield* append(
          first,
          topic as never,
          Array.from({ length: 20 }, () => ({ id: `e${sent++}` }))
        )
      })
      const member = Effect.fnUntraced(function* () {
        return yield* engine(root, application, { on: yield* another(first, 4) })
      })
      const generations = query(
        "generations",
        () => sql<Array<{ generation: number; epoch: number }>>`select generation, epoch from millrace.progress`
      )
      yield* send()
      const stopOld = yield* run(first)
      yield* settled(first)
      assert.isTrue((yield* generations).every(({ generation }) => generation < 1e13))
      // the first upgraded process takes over every partition, while those of the older release still run
      const stopNew = yield* run(yield* member(), upgraded)
      yield* send()
      yield* settled(first)
      // the older group assigns its partitions again, with newer generations than those of the upgraded process
      const stopOther = yield* run(yield* member())
      yield* send()
      yield* settled(first)
      const taken = yield* generations
      assert.isTrue(taken.every(({ generation }) => generation > 1e13))
      yield* stopOther
      yield* send()
      yield* settled(first)
      yield* stopOld
      yield* send()
      yield* settled(first)
      // and a further upgraded process shares them as usual
      yield* run(yield* member(), upgraded)
      yield* send()
      yield* settled(first)
      yield* stopNew
      yield* send()
      yield* settled(first)
      const [row] = yield* query(
        "count",
        () => sql<Array<{ rows: number; events: number; messages: number }>>`select
          (select count(*) from orders_ids) as rows, (select sum(events)::int8 from millrace.progress) as events,
          (select sum(messages)::int8 from millrace.outbox) as messages`
      )
      assert.deepStrictEqual(row, { rows: sent, events: sent, messages: sent } as never)
      // the older processes claimed nothing after the first upgraded one: each partition was claimed once for each holder, and not to and fro
      assert.isTrue(
        (yield* generations).every(({ epoch }) => epoch <= 5),
        JSON.stringify(yield* generations)
      )
    }).pipe(Effect.scoped),
  60_000
)
