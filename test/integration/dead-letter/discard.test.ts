// Discarding dead letters of projections: the discard is a record of the log, so that a replay decides as the first run did.
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { afterAll, afterEach, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { decisionHeader } from "../../../src/dead-letter/retry-record.ts"
import { appendRetryRecords, discardProjections } from "../../../src/system/dead-letters/projections.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import * as Letters from "../../../src/postgres/store/dead-letters.ts"
import { append, type Engine, engine, processed } from "../../support/engine.ts"
import { command } from "../../support/command.ts"
import { application, events, fails } from "../../support/dead-letter-application.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
afterEach(() => void (fails.for = new Set(["bad"])))

const ordered = { order: "key" } as const
const test = (name: string, body: (made: Engine) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(engine(root, application(ordered, [1], false)), body)), 60_000)

const start = 1_700_000_000_000
let made = 0
const event = (key: string, does = "") => ({ id: `d${made++}`, key, at: start + made, does })
type TestEvent = ReturnType<typeof event>
/** Appends events, and processes everything in the log. */
const handled = (made: Engine, values: ReadonlyArray<object> = []) => processed(made, events, values)
const contextOf = ({ log, sql }: Engine) => ({ sql, openLog: Effect.succeed(log) })
const parked = ({ sql }: Engine) => query("parked", () => Letters.list(sql, { statuses: ["parked"], limit: 100 }, true))
/** Discards the parked dead letters of these events. */
const discard = Effect.fnUntraced(function* (made: Engine, ...which: ReadonlyArray<TestEvent>) {
  const found = (yield* parked(made)).filter(({ value }) => which.some(({ id }) => value?.includes(`"${id}"`)))
  return yield* discardProjections(contextOf(made), found, "tester")
})
const retry = Effect.fnUntraced(function* ({ log, sql }: Engine) {
  const found = yield* query("read", () => Letters.retryable(sql, { statuses: ["parked", "retrying"], limit: 100 }))
  return yield* appendRetryRecords(sql, log, found, "tester")
})
/** The ids of a key's events, in the order in which a build processed them. */
const idsOf = (sql: Sql, key: string, version = 1) =>
  Effect.map(
    query("order", () =>
      sql.unsafe<Array<{ ids: string }>>(`select ids from watch_v${version}.handled where key = $1`, [key])
    ),
    ([row]) => row?.ids ?? ""
  )
const ids = (...values: ReadonlyArray<TestEvent>) => values.map(({ id }) => id).join(" ")
const letters = (sql: Sql, version = 1) =>
  Effect.map(
    query(
      "letters",
      () =>
        sql<Array<Letters.StoredDeadLetter & { discard_record: string | null }>>`
          select * from millrace.dead_letters where version = ${version} order by partition, position`
    ),
    (rows) => rows.map((row) => `${row.status} ${row.error} ${row.discard_record}`)
  )
/** Builds version 2 beside version 1, from the start of the log. */
const replayed = Effect.fnUntraced(function* (first: Engine) {
  const both = yield* engine(root, application(ordered, [1, 2], false), { on: first })
  yield* handled(both)
  return both
})

test("a replay processes what the first run processed after a discard, and parks what it parked before", (made) =>
  Effect.gen(function* () {
    const [bad, waiting, late, last] = [event("a", "bad"), event("a"), event("a"), event("a")]
    yield* handled(made, [bad])
    // in the log before the discard, and processed after it: it waits, as in a replay
    yield* append(made, events, [waiting])
    assert.strictEqual(yield* discard(made, bad), 1)
    yield* handled(made, [late])
    assert.strictEqual(yield* idsOf(made.sql, "a"), "")
    assert.strictEqual(yield* discard(made, waiting, late), 2)
    yield* handled(made, [last])
    const decided = ["discarded TypeError processed", ...Array<string>(2).fill("discarded EarlierParked processed")]
    assert.deepStrictEqual(yield* letters(made.sql), decided)
    assert.strictEqual(yield* idsOf(made.sql, "a"), ids(last))
    yield* replayed(made)
    assert.deepStrictEqual(yield* letters(made.sql, 2), decided)
    assert.strictEqual(yield* idsOf(made.sql, "a", 2), ids(last))
  }))

test("what waits behind a discarded event is retried, in the first run as in a replay", (made) =>
  Effect.gen(function* () {
    const [bad, second, third, other] = [event("a", "bad"), event("a"), event("a"), event("b")]
    yield* handled(made, [bad, second, other])
    yield* discard(made, bad)
    assert.strictEqual(yield* retry(made), 1)
    yield* handled(made, [third])
    assert.strictEqual(yield* idsOf(made.sql, "a"), ids(second, third))
    yield* replayed(made)
    assert.strictEqual(yield* idsOf(made.sql, "a", 2), ids(second, third))
    assert.deepStrictEqual(yield* letters(made.sql, 2), yield* letters(made.sql))
  }))

test("a retry that is in the log before a discard counts first", (made) =>
  Effect.gen(function* () {
    const [first, second] = [event("a", "bad"), event("a", "worse")]
    fails.for.add("worse")
    yield* handled(made, [first, second])
    fails.for = new Set(["worse"])
    assert.strictEqual(yield* retry(made), 1)
    assert.strictEqual(yield* discard(made, second), 1)
    yield* handled(made)
    assert.deepStrictEqual(yield* letters(made.sql), ["retried TypeError null", "discarded TypeError processed"])
    fails.for = new Set(["bad"])
    yield* handled(made, [event("a", "bad"), event("a")])
    yield* retry(made)
    yield* discard(made, ...(yield* parked(made)).map(({ value }) => JSON.parse(value!) as TestEvent))
    fails.for.clear()
    yield* handled(made)
    const [, , head, behind] = yield* letters(made.sql)
    // the retry brought back both
    assert.deepStrictEqual([head, behind], ["retried TypeError null", "retried EarlierParked null"])
  }))

test("a discard is shown at once although no process runs, and cannot be repeated", (made) =>
  Effect.gen(function* () {
    const bad = event("a", "bad")
    yield* handled(made, [bad, event("a", "bad")])
    const dlq = (...args: ReadonlyArray<string>) => command(made.url, "dlq", ...args)
    const [{ id } = { id: 0 }] = yield* parked(made)
    assert.strictEqual((yield* dlq("discard", String(id), "--json")).out, '{"discarded":1}\n')
    const shown = JSON.parse((yield* dlq("show", String(id), "--json")).out) as Letters.StoredDeadLetter
    assert.strictEqual(shown.status, "discarded")
    assert.match(shown.decided_by ?? "", /./)
    const again = yield* dlq("discard", String(id))
    assert.strictEqual(again.code, 1)
    const found = (yield* made.log.read(events.name, shown.partition, 0)).records
    assert.lengthOf(
      found.filter(({ headers }) => headers[decisionHeader] === "discard"),
      1
    )
    // other projections take the record for a duplicate
    yield* handled(made)
    const [counted] = yield* query("counts", () => made.sql`select events from everything where key = 'a'`)
    assert.strictEqual(Number(counted!["events"]), 2)
    yield* handled(made, [event("a")])
    assert.deepStrictEqual(yield* letters(made.sql), [
      "discarded TypeError processed",
      "parked EarlierParked null",
      "parked EarlierParked null"
    ])
  }))

for (const when of ["before", "after"] as const) {
  test(`a discard counts once although its process was killed ${when} appending it`, (made) =>
    Effect.gen(function* () {
      const [bad, next] = [event("a", "bad"), event("a")]
      yield* handled(made, [bad])
      yield* killed(made.url, when)
      assert.deepStrictEqual(yield* letters(made.sql), ["parked TypeError null"])
      if (when === "before") assert.strictEqual(yield* discard(made, bad), 1)
      yield* handled(made, [next])
      assert.deepStrictEqual(yield* letters(made.sql), ["discarded TypeError processed"])
      assert.strictEqual(yield* idsOf(made.sql, "a"), ids(next))
      assert.strictEqual(yield* discard(made, bad), 0)
    }))
}
/** Starts a process that discards everything, and kills it before or after its append. */
const killed = (url: string, when: "before" | "after") =>
  Effect.callback<void, Error>((resume) => {
    const script = fileURLToPath(new URL("../../support/retry-child.ts", import.meta.url))
    const args = "Deno" in globalThis ? ["run", "-A", script, url, when] : [script, url, when]
    const child = spawn(process.execPath, [...args, "discard"], { stdio: ["ignore", "pipe", "inherit"] })
    child.stdout.once("data", () => child.kill("SIGKILL"))
    child.once("exit", (code) =>
      resume(code === null ? Effect.void : Effect.fail(new Error(`the child ended with ${code}`)))
    )
  })

test("a replay follows the live build's discards from before they were records of the log", (made) =>
  Effect.gen(function* () {
    const [three, bad, four, five, six] = [event("a"), event("b", "bad"), event("b"), event("b"), event("b")]
    yield* handled(made, [three, bad, four])
    // as the command did
    yield* query("discard", () => made.sql`update millrace.dead_letters set status = 'discarded', decided_by = 'me'`)
    yield* handled(made, [five, six])
    assert.strictEqual(yield* idsOf(made.sql, "b"), ids(five, six))
    // one that is discarded, and one behind it that is retried
    const [worse, behind, later] = [event("c", "bad"), event("c"), event("c")]
    yield* handled(made, [worse, behind])
    yield* query(
      "discard",
      () =>
        made.sql`update millrace.dead_letters set status = 'discarded' where status = 'parked' and error = 'TypeError'`
    )
    assert.strictEqual(yield* retry(made), 1)
    yield* handled(made, [later])
    assert.strictEqual(yield* idsOf(made.sql, "c"), ids(behind, later))
    yield* replayed(made)
    for (const key of ["a", "b", "c"])
      assert.strictEqual(yield* idsOf(made.sql, key, 2), yield* idsOf(made.sql, key), key)
    assert.deepStrictEqual(yield* letters(made.sql, 2), yield* letters(made.sql))
  }))

test("a discard of a topic that no longer exists, or without the log, is noted", (made) =>
  Effect.gen(function* () {
    yield* handled(made, [event("a", "bad"), event("b", "bad")])
    yield* query("old", () => made.sql`update millrace.dead_letters set envelope = null where key = 'a'`)
    yield* query("gone", () => made.sql`update millrace.dead_letters set topic = 'gone' where key = 'b'`)
    assert.strictEqual(yield* discardProjections(contextOf(made), yield* parked(made), "tester"), 2)
    assert.deepStrictEqual(yield* letters(made.sql), Array<string>(2).fill("discarded TypeError null"))
  }))
