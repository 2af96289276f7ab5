// Inline projections on PostgreSQL: rows in the statement that appends, moves between lifecycles under load, and what keeps both right.
import { randomUUID } from "node:crypto"
import { expect, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { Projection } from "../../../../src/index.ts"
import { partitionOf } from "../../../../src/model/partitioner.ts"
import { transaction } from "../../../../src/postgres/client/client.ts"
import { createBuild } from "../../../../src/postgres/store/builds.ts"
import { flip, freeze, isEven, readFollowerPositions } from "../../../../src/postgres/store/promotion.ts"
import { moveLifecycle, readMoves } from "../../../../src/postgres/store/lifecycles.ts"
import { moveOnce } from "../../../../src/system/lifecycles.ts"
import { accounts } from "../../../support/accounts.ts"
import { append, foldedRows, inlineProcess, movesOf, shown } from "../../../support/inline.ts"
import { databaseOn, server } from "../../../support/postgres.ts"
import { TcpProxy } from "../../../support/tcp-proxy.ts"

class Root extends Context.Service<Root, string>()("test/Root") {}
const inline = [Projection.inline(accounts)]
const async = [Projection.async(accounts)]

layer(Layer.effect(Root, server), { excludeTestServices: true, timeout: "60 seconds" })("inline projections", (it) => {
  const database = Effect.flatMap(Effect.service(Root), (root) => databaseOn(root))
  const sameAsFold = Effect.fnUntraced(function* (sql: Parameters<typeof shown>[0]) {
    const rows = yield* shown(sql)
    expect(rows).toEqual(yield* foldedRows(sql))
    return rows
  })
  /** 16 writers append until they are stopped. */
  const appending = Effect.fnUntraced(function* (process: Parameters<typeof append>[0]) {
    const state = { appended: 0, isStopped: false }
    const write = (writer: number) =>
      Effect.gen(function* () {
        while (!state.isStopped) {
          yield* append(process, movesOf(`s${writer % 5}`, [1]))
          state.appended++
        }
      })
    const writers = yield* Effect.forEach(
      Array.from({ length: 16 }, (_, i) => i),
      (writer) => Effect.forkScoped(write(writer))
    )
    const more = Effect.fnUntraced(function* (count: number) {
      const enough = state.appended + count
      while (state.appended < enough) yield* Effect.sleep(5)
    })
    yield* more(50)
    const stop = Effect.gen(function* () {
      state.isStopped = true
      yield* Fiber.joinAll(writers)
      return state.appended
    })
    return { more, stop }
  })

  it.effect(
    "rows are there when an append is answered, by appends of several events and commands of several streams",
    () =>
      Effect.gen(function* () {
        const process = yield* inlineProcess(yield* database, inline)
        yield* append(process, movesOf("a", [1, 2], 0))
        expect(yield* shown(process.sql)).toEqual({
          balances: [{ account_id: "a", owner: null, balance: 3, moves: 2 }],
          turnover: [{ account_id: "a", events: 2, moved: 3 }],
          account_total: [{ kind: "all", events: 2, moved: 3 }]
        })
        yield* Effect.all(
          ["a", "b", "c", "a", "d", "a"].map((stream, i) => append(process, movesOf(stream, [i]))),
          { concurrency: "unbounded" }
        )
        yield* process.store.appendAll([movesOf("a", [5]), movesOf("e", [6, 7])], randomUUID())
        const { account_total } = yield* sameAsFold(process.sql)
        expect(account_total).toEqual([{ kind: "all", events: 11, moved: 36 }])
      })
  )
  it.effect("a repeated command writes no rows again, alone or among others, and gets its answer", () =>
    Effect.gen(function* () {
      const process = yield* inlineProcess(yield* database, inline)
      const first = yield* append(process, movesOf("a", [1], 0), "one")
      const [again] = yield* Effect.all(
        [append(process, movesOf("a", [1], 0), "one"), append(process, movesOf("b", [2]), "two")],
        { concurrency: "unbounded" }
      )
      expect(again).toEqual({ ...first, repeated: true })
      expect((yield* process.store.appendAll([movesOf("b", [2])], "two"))[0]).toMatchObject({ repeated: true })
      expect((yield* sameAsFold(process.sql)).account_total).toEqual([{ kind: "all", events: 2, moved: 3 }])
    })
  )
  it.effect("an append that expects a stream, which another process begins at the same time, writes its row", () =>
    Effect.gen(function* () {
      const on = yield* database
      const [one, other] = [yield* inlineProcess(on, inline), yield* inlineProcess(on, inline)]
      const streams = Array.from({ length: 150 }, (_, i) => `new${i}`)
      const both = (stream: string) =>
        Effect.all([append(one, movesOf(stream, [5])), Effect.exit(append(other, movesOf(stream, [1], "exists")))], {
          concurrency: "unbounded"
        })
      yield* Effect.forEach(streams, both, { concurrency: 8 })
      yield* sameAsFold(one.sql)
    })
  )
  it.effect("a command that follows one which is not there is refused, and no rows are written for it", () =>
    Effect.gen(function* () {
      const process = yield* inlineProcess(yield* database, inline)
      const names = Array.from({ length: 20 }, (_, i) => `s${i}`)
      // in one statement: they are in one partition
      const [stray, other] = names.filter((name) => partitionOf(name, 4) === partitionOf("s0", 4))
      yield* append(process, movesOf(stray!, [1], 0), "one")
      const [refused, appended] = yield* Effect.all(
        [
          Effect.flip(append(process, { ...movesOf(stray!, [5], 1), follows: "another" })),
          append(process, movesOf(other!, [2]))
        ],
        { concurrency: "unbounded" }
      )
      expect(refused).toMatchObject({ _tag: "VersionConflict" })
      expect(appended).toMatchObject({ version: 1, repeated: false })
      expect((yield* sameAsFold(process.sql)).account_total).toEqual([{ kind: "all", events: 2, moved: 3 }])
    })
  )
  it.effect(
    "a refused command says the true version, and the commands that were sent with it are appended with their rows",
    () =>
      Effect.gen(function* () {
        const process = yield* inlineProcess(yield* database, inline)
        yield* append(process, movesOf("a", [1, 1, 1], 0))
        const [refused] = yield* Effect.all(
          [
            Effect.flip(append(process, movesOf("a", [9], 7))),
            append(process, movesOf("b", [2])),
            append(process, movesOf("e", [2]))
          ],
          { concurrency: "unbounded" }
        )
        expect(refused).toMatchObject({ _tag: "VersionConflict", expected: 7, actual: 3 })
        expect((yield* sameAsFold(process.sql)).account_total).toEqual([{ kind: "all", events: 5, moved: 7 }])
      })
  )
  it.effect("a handler that fails fails its command alone, and nothing of that is appended", () =>
    Effect.gen(function* () {
      const failing = {
        ...accounts,
        handle: (event: { readonly amount: number }, out: never, context: object) => {
          if (event.amount === 13) throw new Error("unlucky")
          return accounts.handle(event as never, out, context)
        }
      } as unknown as typeof accounts
      const process = yield* inlineProcess(yield* database, [Projection.inline(failing)])
      const [error] = yield* Effect.all(
        [
          Effect.flip(append(process, movesOf("a", [1, 13]))),
          append(process, movesOf("a", [2])),
          append(process, movesOf("e", [3]))
        ],
        { concurrency: "unbounded" }
      )
      expect(error).toMatchObject({ _tag: "InlineFailed", projection: "accounts", stream: "a", reason: "unlucky" })
      expect((yield* sameAsFold(process.sql)).account_total).toEqual([{ kind: "all", events: 2, moved: 5 }])
    })
  )
  it.effect("a row that PostgreSQL refuses fails its command alone, with what PostgreSQL says", () =>
    Effect.gen(function* () {
      const process = yield* inlineProcess(yield* database, inline)
      yield* Effect.promise(() =>
        process.sql.unsafe("alter table accounts_v1.balances add constraint small check (balance < 100)")
      )
      const [error] = yield* Effect.all(
        [Effect.flip(append(process, movesOf("a", [100]))), append(process, movesOf("e", [3]))],
        { concurrency: "unbounded" }
      )
      expect(error).toMatchObject({ _tag: "InlineFailed", stream: "a" })
      expect(error.message).toContain("small")
      expect((yield* sameAsFold(process.sql)).account_total).toEqual([{ kind: "all", events: 1, moved: 3 }])
    })
  )
  it.effect("64 writers in two processes, on few streams and by number or any version: rows equal a fold", () =>
    Effect.gen(function* () {
      const on = yield* database
      const processes = [yield* inlineProcess(on, inline), yield* inlineProcess(on, inline)]
      let conflicts = 0
      yield* Effect.forEach(
        Array.from({ length: 64 }, (_, i) => i),
        Effect.fnUntraced(function* (writer) {
          const process = processes[writer % 2]!
          for (let i = 0; i < 8; i++) {
            const stream = `s${(writer + i) % 7}`
            const version = i % 2 === 0 ? ("any" as const) : (yield* process.store.load("account", stream)).version
            yield* append(process, movesOf(stream, [1, writer], version)).pipe(
              Effect.catchTag("VersionConflict", () => Effect.sync(() => void conflicts++))
            )
          }
        }),
        { concurrency: "unbounded", discard: true }
      )
      const { account_total } = yield* sameAsFold(processes[0]!.sql)
      expect(account_total[0]!["events"]).toBe(2 * (64 * 8 - conflicts))
      expect(conflicts).toBeGreaterThan(0)
      const positions = yield* Effect.promise(
        () => processes[0]!.sql`select from millrace.progress g join millrace.log_topic t on t.name = g.topic
          join millrace.log_head h using (topic_id, partition) where g.next_position <> h.next_position`
      )
      expect(positions.length).toBe(0)
    })
  )
  it.effect("a projection moves from async to inline and back under load: nothing is lost and nothing doubled", () =>
    Effect.gen(function* () {
      const on = yield* database
      const first = yield* inlineProcess(on, async)
      const stop = yield* first.run
      const load = yield* appending(first)
      const second = yield* inlineProcess(on, inline)
      const movedTo = Effect.fnUntraced(function* () {
        while ((yield* readMoves(on.sql)).length > 0) yield* moveOnce(on.sql)
        yield* load.more(100)
      })
      yield* movedTo()
      yield* inlineProcess(on, async)
      yield* movedTo()
      yield* inlineProcess(on, inline)
      yield* movedTo()
      const appended = yield* load.stop
      yield* append(second, movesOf("s0", [1]))
      yield* stop
      const { account_total } = yield* sameAsFold(on.sql)
      expect(account_total[0]!["events"]).toBe(appended + 1)
    })
  )
  it.effect("a new build takes the place of an inline one under load, is inline at once, and has the same rows", () =>
    Effect.gen(function* () {
      const on = yield* database
      const process = yield* inlineProcess(on, inline)
      const load = yield* appending(process)
      const next = yield* transaction(on.sql, (tx) =>
        createBuild(tx, accounts, { partitionsOf: () => 4, startOf: () => 0 })
      )
      const stop = yield* process.runBuild(next)
      const pair = { projection: "accounts", live: 1, follower: 2, token: randomUUID() }
      yield* load.more(50)
      while (!isEven(yield* readFollowerPositions(on.sql, pair))) {
        yield* freeze(on.sql, pair, 2_000)
        yield* Effect.sleep(20)
      }
      expect(yield* flip(on.sql, pair)).toBe("now")
      yield* load.more(50)
      const appended = yield* load.stop
      yield* stop
      const found = yield* Effect.promise(
        () =>
          on.sql`select g.version, g.inline, g.mode, sum(g.next_position)::int4 as events from millrace.progress g group by 1, 2, 3 order by 1`
      )
      expect(found[1]).toEqual({ version: 2, inline: true, mode: "live", events: appended })
      expect(found[0]).toMatchObject({ version: 1, inline: false, mode: "follower" })
      expect(yield* shown(on.sql, "accounts_v2.")).toEqual(yield* foldedRows(on.sql))
    })
  )
  it.effect("a projection that is declared inline over events that exist catches up first, and is inline then", () =>
    Effect.gen(function* () {
      const on = yield* database
      const before = yield* inlineProcess(on, [])
      for (let i = 0; i < 20; i++) yield* append(before, movesOf(`s${i % 3}`, [i]))
      const process = yield* inlineProcess(on, inline)
      expect(yield* readMoves(on.sql)).toEqual([{ name: "accounts", build: 1, to: "inline" }])
      yield* append(process, movesOf("s0", [100]))
      const stop = yield* process.run
      while ((yield* readMoves(on.sql)).length > 0) yield* moveOnce(on.sql)
      yield* append(process, movesOf("s1", [100]))
      yield* sameAsFold(on.sql)
      yield* stop
    })
  )
  it.effect("a process without the code of an inline projection is refused, and told what to deploy", () =>
    Effect.gen(function* () {
      const on = yield* database
      const old = yield* inlineProcess(on, [])
      yield* append(old, movesOf("a", [1]))
      const process = yield* inlineProcess(on, inline)
      const stop = yield* process.run
      while ((yield* readMoves(on.sql)).length > 0) yield* moveOnce(on.sql)
      yield* stop
      const error = yield* Effect.flip(append(old, movesOf("a", [2])))
      expect(error).toMatchObject({ _tag: "InlineMissing", projection: "accounts", version: 1 })
      expect(error.message).toBe(
        "account: nothing was appended, because the rows of the inline projection accounts are written with the events, and this process does not have its version 1; " +
          "send the command to a process that has it. If this one has a newer version, run millrace promote accounts; otherwise replace its code by that of version 1"
      )
      yield* append(process, movesOf("a", [3]))
      yield* sameAsFold(on.sql)
    })
  )
  it.effect("appends whose connections are cut are answered, and their rows are a fold of the events", () =>
    Effect.gen(function* () {
      const on = yield* database
      const cut = new TcpProxy(Number(new URL(on.url).port))
      yield* Effect.acquireRelease(
        Effect.promise(() => cut.open()),
        () => Effect.promise(() => cut.close())
      )
      const through = new URL(on.url)
      through.port = String(cut.port)
      const process = yield* inlineProcess({ url: through.href }, inline)
      const load = yield* appending(process)
      for (let i = 0; i < 3; i++) {
        cut.cut()
        yield* load.more(20)
      }
      const appended = yield* load.stop
      const { account_total } = yield* sameAsFold(on.sql)
      expect(account_total[0]!["events"]).toBe(appended)
    })
  )
  it.effect("an open dead letter keeps a projection from becoming inline", () =>
    Effect.gen(function* () {
      const on = yield* database
      const process = yield* inlineProcess(on, inline)
      yield* Effect.promise(async () => {
        await on.sql`update millrace.progress set inline = false`
        await on.sql`insert into millrace.dead_letters (projection, version, topic, partition, position, status, error, message, attempts, headers)
          values ('accounts', 1, 'account', 0, 0, 'parked', 'Error', 'no', 1, '{}')`
      })
      expect(yield* moveLifecycle(process.sql, { name: "accounts", build: 1 }, 100)).toBe("dead letters")
    })
  )
})
