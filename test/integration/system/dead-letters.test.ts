// Dead letters as a console or an HTTP route uses them: typed results and typed errors, with nothing printed.
import { afterAll, afterEach, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { connect, query } from "../../../src/postgres/client/client.ts"
import { lockRetries } from "../../../src/postgres/store/dead-letter-decisions.ts"
import * as DeadLetters from "../../../src/system/dead-letters/dead-letters.ts"
import { append, engine, run, settled } from "../../support/engine.ts"
import { application, events, fails } from "../../support/dead-letter-application.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
afterEach(() => void (fails.for = new Set(["bad"])))

it.live(
  "dead letters are listed, previewed, discarded and retried, and a busy database is reported",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const on = yield* engine(root, application())
        const poisons = ["a", "b", "c"].map((key, i) => ({ id: `e${i}`, key, at: 1_700_000_000_000 + i, does: "bad" }))
        yield* append(on, events, poisons)
        const processed = Effect.flatMap(run(on), (stop) => Effect.andThen(settled(on), stop))
        yield* processed
        const context: DeadLetters.DeadLettersContext = {
          sql: on.sql,
          openLog: Effect.succeed(on.log),
          bridgeRules: undefined
        }
        const kinds = ["projection", "relay"]
        const newest = yield* DeadLetters.list(context, yield* DeadLetters.selectionOf({ kinds, limit: 2 }))
        assert.lengthOf(newest.deadLetters, 2)
        assert.deepStrictEqual([newest.hasMore, newest.leftOut], [true, []])
        assert.deepInclude(newest.deadLetters[0], { status: "parked", failedIn: "watch v1, live", attempts: 1 })
        const all = yield* DeadLetters.selectionOf({ kinds, limit: 9 })
        const { deadLetters, hasMore } = yield* DeadLetters.list(context, all)
        assert.deepStrictEqual([deadLetters.map(({ key }) => key).toSorted(), hasMore], [["a", "b", "c"], false])

        const ofKey = (key: string) => DeadLetters.bulkSelectionOf({ all: false, kinds, key, limit: 9 })
        const preview = yield* DeadLetters.preview(context, yield* ofKey("c"), "discard")
        assert.deepStrictEqual(
          preview.deadLetters.map(({ key, status }) => [key, status]),
          [["c", "parked"]]
        )
        const other = yield* connect(on.url, { max: 1 })
        const busy = Effect.gen(function* () {
          assert.isTrue(yield* lockRetries(other))
          return yield* Effect.flip(DeadLetters.discard(context, yield* ofKey("c"), "tester"))
        })
        assert.strictEqual((yield* Effect.scoped(busy))._tag, "DecisionsBusy")
        assert.deepStrictEqual(yield* DeadLetters.discard(context, yield* ofKey("c"), "tester"), {
          discarded: 1,
          notDiscarded: 0,
          leftOut: []
        })
        fails.for.clear()
        // the limit leaves some out, and the result has how many; those that are tried stay open until they are processed
        const first = yield* DeadLetters.bulkSelectionOf({ all: true, kinds, limit: 1 })
        const some = yield* DeadLetters.retry(context, first, "tester")
        assert.deepStrictEqual([some.retried, some.notTried], [1, 1])
        yield* query(
          "park messages",
          () => on.sql`insert into millrace.relay_parked (target, projection, source, partition, seq, incarnation, topic, key, meta, val, reason)
            select 'pulsar', 'watch', 's', 0, n, gen_random_uuid(), 't', 'k', '[["k",1]]', '{}', 'no' from generate_series(1, 5) n`
        )
        const parked = (limit: number) => DeadLetters.bulkSelectionOf({ all: false, kinds: ["relay"], limit })
        const left = { leftOut: [] }
        const discarded = yield* DeadLetters.discard(context, yield* parked(2), "tester")
        assert.deepStrictEqual(discarded, { discarded: 2, notDiscarded: 3, ...left })
        const others = yield* DeadLetters.discard(context, yield* parked(3), "tester")
        assert.deepStrictEqual(others, { discarded: 3, notDiscarded: 0, ...left })
        const rest = yield* DeadLetters.bulkSelectionOf({ all: true, kinds, limit: 9 })
        const result = yield* DeadLetters.retry(context, rest, "tester")
        assert.deepStrictEqual(result, { retried: 2, notTried: 0, refused: [], leftOut: [], failures: [] })
        yield* processed
        const decided = { kinds: ["projection"], statuses: ["retried", "discarded"], limit: 9 }
        const after = yield* DeadLetters.list(context, yield* DeadLetters.selectionOf(decided))
        assert.deepStrictEqual(
          after.deadLetters
            .map(({ details, key, status }) => `${key} ${status} by ${String(details["decided_by"])}`)
            .toSorted(),
          ["a retried by tester", "b retried by tester", "c discarded by tester"]
        )
      })
    ),
  60_000
)

it.live("a database without tables for dead letters is reported as not migrated", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { sql } = yield* databaseOn(root)
      yield* query("remove the tables", () => sql`drop schema millrace cascade`)
      const context = { sql, openLog: Effect.die("not used"), bridgeRules: undefined }
      const selection = yield* DeadLetters.selectionOf({ kinds: ["projection"], limit: 1 })
      const error = yield* Effect.flip(DeadLetters.list(context, selection))
      assert.deepStrictEqual(
        [error._tag, error.message, error.try],
        ["NotMigrated", "this database has no dead letters of this version yet", "millrace migrate"]
      )
    })
  )
)
