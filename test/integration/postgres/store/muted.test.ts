// A follower's batch has no messages, so a live partition refuses it: alone, and in a statement that it shares with others.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Sql } from "../../../../src/postgres/client/client.ts"
import type { Changes, Claim } from "../../../../src/runner/store.ts"
import { application, assertOutbox, batchOf, counted, counting, events } from "../../../fault/commits.ts"
import { engine } from "../../../support/engine.ts"
import { server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const one = counting()
const setMode = (sql: Sql, mode: "live" | "follower") =>
  Effect.promise(() => sql`update millrace.progress set mode = ${mode} where version = 1`)
/** Another build is live, and far ahead. */
const addLive = (sql: Sql) =>
  Effect.promise(() =>
    sql.unsafe(`insert into millrace.projection (name, version, declared, definition) values ('counting', 2, 2, '');
      insert into millrace.progress (projection, version, topic, partition, mode, next_position)
        select projection, 2, topic, partition, 'live', 1000 from millrace.progress;
      update millrace.live set version = 2`)
  )
const removeLive = (sql: Sql) => Effect.promise(() => sql`delete from millrace.projection where version = 2`)
/** The same changes without their messages, as a follower's processor makes them. */
const muted = ({ segments, windows, ...changes }: Changes): Changes => ({
  ...changes,
  segments: [],
  windows: windows.map((change) => ({ ...change, isMuted: true })),
  muted: Object.fromEntries(segments.map(({ messages, topic }) => [topic, messages]))
})
const isPromoted = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) &&
  exit.cause.reasons.some((reason) => "error" in reason && (reason.error as { isPromoted?: boolean }).isPromoted)

it.live("a batch of a build that a promotion replaced is refused as that of a build that is no longer live", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { sql, store } = yield* engine(root, application)
      const held = yield* store.claim(one, events.name, 0, 1)
      yield* addLive(sql)
      yield* Effect.promise(
        () => sql`update millrace.progress set mode = 'follower', incarnation = gen_random_uuid() where version = 1`
      )
      const error = yield* Effect.flip(store.commit(one, held, batchOf(held, ["a"])))
      assert.strictEqual(
        error.message,
        `counting ${events.name}/0: the build is no longer live: a promotion put another one in its place, which it follows from now on`
      )
    })
  )
)

it.live("a muted batch whose partition went live is refused, and commits with its messages under a new claim", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { sql, store } = yield* engine(root, application)
      yield* setMode(sql, "follower")
      yield* addLive(sql)
      const held = yield* store.claim(one, events.name, 0, 1)
      yield* setMode(sql, "live")
      const changes = batchOf(held, ["a", "b"])
      const exit = yield* Effect.exit(store.commit(one, held, muted(changes)))
      assert.isTrue(isPromoted(exit), "the commit was not refused as that of a promoted partition")
      assert.deepStrictEqual(yield* counted(sql), {})
      const live = yield* store.claim(one, events.name, 0, 1)
      assert.strictEqual(live.mode, "live")
      yield* store.commit(one, live, changes)
      assert.deepStrictEqual(yield* counted(sql), { a: 1, b: 1 })
      yield* removeLive(sql)
      yield* assertOutbox(sql, 4)
    })
  )
)

it.live("of commits that share a statement only those are refused whose partition went live", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { sql, store } = yield* engine(root, application)
      yield* setMode(sql, "follower")
      yield* addLive(sql)
      const followers = yield* Effect.forEach([0, 1, 2], (partition) => store.claim(one, events.name, partition, 1))
      yield* Effect.promise(
        () => sql`update millrace.progress set mode = 'live' where version = 1 and partition in (1, 3)`
      )
      const other = yield* store.claim(one, events.name, 3, 1)
      const keys = (claim: Claim) => [`k${claim.partition}`]
      // the first is sent alone, the others wait for it and share the next statement
      const commits = [...followers.map((claim) => muted(batchOf(claim, keys(claim)))), batchOf(other, keys(other))]
      const exits = yield* Effect.forEach(
        [...followers, other],
        (claim, i) => Effect.exit(store.commit(one, claim, commits[i]!)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false, true, true])
      assert.isTrue(isPromoted(exits[1]!))
      assert.deepStrictEqual(yield* counted(sql), { k0: 1, k2: 1, k3: 1 })
      yield* removeLive(sql)
      yield* assertOutbox(sql, 2)
    })
  )
)
