// Retrying and discarding dead letters of projections: processed once however often it is requested, by their projection only, and in order.
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { appendRetryRecords, discardProjections } from "../../../src/system/dead-letters/projections.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import * as Letters from "../../../src/postgres/store/dead-letters.ts"
import type { FailurePolicy } from "../../../src/model/failure-policy.ts"
import { append, type Engine, engine, processed, recordOf, run, settled } from "../../support/engine.ts"
import * as Cli from "../../support/cli.ts"
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

type Body = (made: Engine) => Effect.Effect<void, unknown, Scope.Scope>
const test = (name: string, failure: FailurePolicy, body: Body, timeout = 60_000) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(engine(root, application(failure)), body)), timeout)

const start = 1_700_000_000_000
let made = 0
/** A new event of a key. */
const event = (key: string, does = "") => ({ id: `e${made++}`, key, at: start + made, does })
const idsOf = (values: ReadonlyArray<{ readonly id: string }>) => values.map(({ id }) => id).join(" ")

/** Appends records, and processes everything in the log. */
const handled = (engine: Engine, values: ReadonlyArray<object>) => processed(engine, events, values)
const retry = Effect.fnUntraced(function* ({ log, sql }: Engine, filter: Partial<Letters.DeadLetterQuery> = {}) {
  const letters = yield* query("read", () =>
    Letters.retryable(sql, { statuses: ["parked", "retrying"], limit: 1_000, ...filter })
  )
  return yield* appendRetryRecords(sql, log, letters, "tester")
})
const letters = (sql: Sql) =>
  query(
    "letters",
    () =>
      sql<Array<Letters.StoredDeadLetter>>`select * from millrace.dead_letters order by version, partition, position`
  )
const statuses = (sql: Sql) =>
  Effect.map(letters(sql), (found) => found.map(({ attempts, status }) => `${status} ${attempts}`))
const orderOf = (sql: Sql, version = 1) =>
  Effect.map(
    query("order", () =>
      sql.unsafe<Array<{ key: string; ids: string }>>(`select key, ids from watch_v${version}.handled order by key`)
    ),
    (rows) => Object.fromEntries(rows.map(({ ids, key }) => [key, ids]))
  )
/** Checks how many events of each key both projections have counted. */
const assertCounts = Effect.fnUntraced(function* (sql: Sql, watched: object, everything: object, version = 1) {
  const read = (table: string) =>
    Effect.map(
      query("counts", () =>
        sql.unsafe<Array<{ key: string; events: number }>>(`select key, events from ${table} order by key`)
      ),
      (rows) => Object.fromEntries(rows.map(({ events, key }) => [key, events]))
    )
  assert.deepStrictEqual(yield* read(`watch_v${version}.counts`), watched)
  assert.deepStrictEqual(yield* read("everything"), everything)
})

describe("a dead letter that is retried", () => {
  test(
    "is processed once, by its projection only, at the end of the log",
    {},
    Effect.fnUntraced(function* (engine) {
      const [before, poison, after] = [event("a"), event("a", "bad"), event("a")]
      yield* handled(engine, [before, poison, after])
      yield* assertCounts(engine.sql, { a: 2 }, { a: 3 })
      fails.for.clear()
      assert.strictEqual(yield* retry(engine), 1)
      assert.deepStrictEqual(yield* statuses(engine.sql), ["retrying 1"])
      yield* handled(engine, [])
      yield* assertCounts(engine.sql, { a: 3 }, { a: 3 })
      assert.deepStrictEqual(yield* orderOf(engine.sql), { a: idsOf([before, after, poison]) })
      const [letter] = yield* letters(engine.sql)
      const { bounds } = { bounds: yield* engine.log.bounds(events.name) }
      assert.deepInclude(
        { ...letter },
        { status: "retried", attempts: 2, decided_by: "tester", retried_position: bounds[letter!.partition]!.end - 1 }
      )
      // neither a retry that is in the log twice nor the event itself counts again
      yield* query("forget", () => engine.sql`update millrace.dead_letters set status = 'retrying' where false`)
      const { partition } = letter!
      const { records } = yield* engine.log.read(events.name, partition, bounds[partition]!.end - 1)
      yield* engine.log.append(events.name, records)
      yield* handled(engine, [poison])
      yield* assertCounts(engine.sql, { a: 3 }, { a: 4 })
      assert.strictEqual(yield* retry(engine), 0)
    })
  )
  test(
    "and fails again stays parked, with one more attempt",
    {},
    Effect.fnUntraced(function* (engine) {
      yield* handled(engine, [event("a", "bad"), event("a", "whole")])
      for (const attempts of [2, 3]) {
        assert.strictEqual(yield* retry(engine), 2)
        yield* handled(engine, [])
        assert.deepStrictEqual(yield* statuses(engine.sql), [`parked ${attempts}`, `parked ${attempts}`])
      }
      const found = yield* letters(engine.sql)
      assert.deepStrictEqual(
        found.map(({ error }) => error),
        ["TypeError", "Unstorable"]
      )
      // where the handler threw; and what the store refuses was thrown nowhere in the application
      assert.match(
        found[0]!.thrown_at ?? "",
        /^(?:Object\.)?handle \(test\/support\/dead-letter-application\.ts:\d+:\d+\)$/
      )
      assert.isNull(found[1]!.thrown_at)
      const published = yield* query(
        "outbox",
        () =>
          engine.sql`select sum(messages)::int8 as n, bool_or(vals like '%application.ts%') as leaks from millrace.outbox`
      )
      assert.deepStrictEqual({ ...published[0] }, { n: 6, leaks: false })
    })
  )
  test(
    "is the same event, whatever it contains",
    {},
    Effect.fnUntraced(function* (engine) {
      const odd = "nul \u0000 and half \ud83d"
      const record = {
        ...recordOf(events, event(odd, "bad"), 2),
        tenant: odd,
        eventId: "id",
        headers: { odd },
        value: '{"text": "no event",  "spaces" : "kept"}'
      }
      const raw = { ...record, value: `{"raw": "${"\ud83d"}", "n": 1}` }
      yield* engine.log.append(events.name, [record, raw])
      const [kept, keptRaw] = (yield* engine.log.read(events.name, record.partition, 0)).records
      yield* handled(engine, [])
      assert.strictEqual(yield* retry(engine), 2 + 2)
      const { records } = yield* engine.log.read(events.name, record.partition, 2)
      const mine = records.filter(({ headers }) => headers["millrace-retry"]?.startsWith("watch/"))
      const own = ({ appendedAt: _, headers, position: __, ...rest }: (typeof records)[number]) => ({
        ...rest,
        odd: headers["odd"]
      })
      assert.deepStrictEqual(mine.map(own), [own(kept!), own(keptRaw!)])
    })
  )
  test(
    "does not change the dead letter of another projection for the same event",
    {},
    Effect.fnUntraced(function* (engine) {
      yield* engine.log.append(events.name, [{ ...recordOf(events, event("a"), 2), value: "{}" }])
      yield* handled(engine, [])
      assert.strictEqual(yield* retry(engine, { projection: "watch" }), 1)
      yield* handled(engine, [])
      const found = (yield* letters(engine.sql)).map(({ attempts, projection }) => `${projection} ${attempts}`)
      assert.deepStrictEqual(found.toSorted(), ["other 1", "watch 2"])
    })
  )
  for (const when of ["before", "after"] as const) {
    test(
      `is processed once even if the process that retried it was killed ${when} appending it`,
      {},
      Effect.fnUntraced(function* (engine) {
        const poisons = [event("a", "bad"), event("b", "bad"), event("c", "bad")]
        yield* handled(engine, poisons)
        yield* killed(engine.url, when)
        assert.deepStrictEqual(yield* statuses(engine.sql), Array(3).fill("retrying 1"))
        fails.for.clear()
        assert.strictEqual(yield* retry(engine), 3)
        yield* handled(engine, [])
        yield* assertCounts(engine.sql, { a: 1, b: 1, c: 1 }, { a: 1, b: 1, c: 1 })
        assert.deepStrictEqual(yield* statuses(engine.sql), Array(3).fill("retried 2"))
        assert.strictEqual(yield* retry(engine), 0)
      })
    )
  }
  it.live("is decided for each version separately, so a rebuild has the same result", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const first = yield* engine(root, application({}, [1], false))
        const [poison, other] = [event("a", "bad"), event("b")]
        yield* handled(first, [poison, other])
        fails.for.clear()
        yield* retry(first)
        yield* handled(first, [event("a")])
        yield* assertCounts(first.sql, { a: 2, b: 1 }, { a: 2, b: 1 })
        // one version that handles the event at its place, and one that fails as the first did
        const mended = yield* engine(root, application({}, [1, 2], false), { on: first })
        yield* handled(mended, [])
        yield* assertCounts(first.sql, { a: 2, b: 1 }, { a: 2, b: 1 }, 2)
        fails.for.add("bad")
        const failing = yield* engine(root, application({}, [1, 2, 3], false), { on: first })
        yield* handled(failing, [])
        assert.deepStrictEqual(yield* statuses(first.sql), ["retried 2", "parked 2"])
        fails.for.clear()
        yield* retry(first)
        yield* handled(failing, [])
        for (const version of [1, 2, 3]) yield* assertCounts(first.sql, { a: 2, b: 1 }, { a: 2, b: 1 }, version)
      })
    )
  )
})
/** Starts a process that retries everything, and kills it before or after its append. */
const killed = (url: string, when: "before" | "after") =>
  Effect.callback<void, Error>((resume) => {
    const script = fileURLToPath(new URL("../../support/retry-child.ts", import.meta.url))
    const args = "Deno" in globalThis ? ["run", "-A", script, url, when] : [script, url, when]
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] })
    child.stdout.once("data", () => child.kill("SIGKILL"))
    child.once("exit", (code) =>
      resume(code === null ? Effect.void : Effect.fail(new Error(`the child ended with ${code}`)))
    )
  })

const configured = ["--config", fileURLToPath(new URL("../../support/dead-letter-application.ts", import.meta.url))]

describe("millrace dlq", () => {
  test(
    "leaves out dead letters on an unavailable system, and reports that",
    {},
    Effect.fnUntraced(function* (engine) {
      yield* handled(engine, [event("a", "bad")])
      const away = "ws://127.0.0.1:9"
      const environment = { MILLRACE_DATABASE_URL: engine.url, MILLRACE_PULSAR_URL: away }
      const { code, errors, output } = yield* Cli.run(environment, "dlq", "list", "--json")
      assert.strictEqual(code, 1)
      assert.match(errors, /dead letters of kind subscription are left out: .*Pulsar does not answer/)
      assert.lengthOf(JSON.parse(output) as ReadonlyArray<unknown>, 1)
      const asked = yield* Cli.run(environment, "dlq", "list", "--kind", "subscription", "--json")
      assert.deepStrictEqual([asked.code, asked.output], [1, ""])
    })
  )
  test(
    "lists, shows, retries and discards",
    {},
    Effect.fnUntraced(function* (engine) {
      const [first, second, third] = [event("a", "bad"), event("b", "bad"), event("c", "bad")]
      yield* handled(engine, [first, second, third])
      const dlq = (...args: ReadonlyArray<string>) => command(engine.url, "dlq", ...args)
      const listed = JSON.parse((yield* dlq("list", "--json")).out) as Array<{ id: number; key: string }>
      assert.deepStrictEqual(listed.map(({ key }) => key).toSorted(), ["a", "b", "c"])
      const idOf = (key: string) => String(listed.find((letter) => letter.key === key)!.id)
      const shown = JSON.parse((yield* dlq("show", idOf("b"), "--json")).out) as object
      assert.deepInclude(shown, {
        status: "parked",
        projection: "watch",
        topic: "l.events",
        error: "TypeError",
        message: `cannot handle ${second!.id}`,
        value: JSON.stringify(second),
        event_id: second!.id,
        trace_id: "0af7651916cd43dd8448eb211c80319c",
        attempts: 1
      })
      assert.match((yield* dlq("show", idOf("b"))).out, /^failed in: +watch v1, live$/m)
      // a build has a number of its own
      yield* query("renumber", () => engine.sql`update millrace.projection set declared = 7 where name = 'watch'`)
      assert.match((yield* dlq("list")).out, /watch build 1 \(version 7\), live/)
      yield* query("renumber", () => engine.sql`update millrace.projection set declared = 1 where name = 'watch'`)
      const table = yield* dlq("list", "--error", "TypeError", "--since", "1 hour", "--limit", "2")
      assert.match(table.out, /parked.*watch v1.*l\.events\/\d@\d.*TypeError: cannot handle/)
      assert.match(table.out, /\(2 rows\)/)
      assert.strictEqual(table.err, "millrace: these are the newest 2; for others use --limit or filters\n")
      assert.strictEqual((yield* dlq("list", "--limit", "3")).err, "")
      assert.strictEqual((yield* dlq("list", "--since", "2099-01-01", "--json")).out, "[]\n")
      // nothing in bulk unless it is said which
      const vague = yield* dlq("retry", ...configured)
      assert.strictEqual(vague.code, 2)
      assert.match(vague.err, /which dead letters\?\ntry: ids, a filter/)
      assert.strictEqual((yield* dlq("list", "--status", "lost")).code, 2)
      assert.match((yield* dlq("discard", "--all", "--dry-run")).out, /would discard:[^]*\(3 rows\)/)
      assert.strictEqual((yield* dlq("discard", idOf("c"), "--json")).out, '{"discarded":1}\n')
      assert.strictEqual((yield* dlq("discard", idOf("c"))).code, 1)
      assert.match((yield* dlq("retry", "--key", "a", "--dry-run")).out, /would retry:[^]*\(1 row\)/)
      // no process runs the projection: the test does, below
      const retried = yield* dlq("retry", "--projection", "watch", "--json", ...configured)
      const run = { build: "watch v1, live", count: 2, try: "start a process that runs it: millrace start" }
      assert.deepStrictEqual(JSON.parse(retried.out), { retried: 2, not_run: [run] })
      fails.for.clear()
      yield* handled(engine, [])
      yield* assertCounts(engine.sql, { a: 1, b: 1 }, { a: 1, b: 1, c: 1 })
      const after = JSON.parse((yield* dlq("list", "--status", "retried,discarded", "--json")).out) as Array<{
        key: string
      }>
      assert.lengthOf(after, 3)
    }),
    240_000
  )
})

const ordered = { order: "key" } as const
describe('with `order: "key"`', () => {
  test(
    "later events of a parked event's key wait behind it, and are processed after it",
    ordered,
    Effect.fnUntraced(function* (engine) {
      const [a1, a2, a3, a4] = [event("a"), event("a", "bad"), event("a"), event("a")] as const
      const [b1, b2] = [event("b"), event("b")]
      yield* handled(engine, [a1, b1, a2, b2, a3])
      yield* handled(engine, [a4])
      assert.deepStrictEqual(yield* orderOf(engine.sql), { a: a1.id, b: idsOf([b1, b2]) })
      const found = (yield* letters(engine.sql)).filter(({ key }) => key === "a")
      assert.deepStrictEqual(
        found.map(({ error }) => error),
        ["TypeError", "EarlierParked", "EarlierParked"]
      )
      fails.for.clear()
      assert.strictEqual(yield* query("behind", () => Letters.countBehind(engine.sql, [found[0]!.id])), 2)
      // whichever is named, the first of the key comes, and what comes after it in the log waits until it has
      assert.strictEqual(yield* retry(engine, { ids: [found[2]!.id] }), 1)
      const a5 = event("a")
      yield* handled(engine, [a5])
      assert.deepStrictEqual(yield* orderOf(engine.sql), { a: idsOf([a1, a2, a3, a4, a5]), b: idsOf([b1, b2]) })
      assert.deepStrictEqual(
        (yield* letters(engine.sql)).map(({ status }) => status),
        ["retried", "retried", "retried"]
      )
      const [outcome] = yield* query("outcome", () => Letters.retryOutcome(engine.sql, [found[0]!.id]))
      assert.deepInclude(outcome, { processed: 1, behind: 2, failed_again: 0, failed_behind: 0, failed: [] })
    })
  )
  test(
    "the first event that fails again keeps those behind it parked",
    ordered,
    Effect.fnUntraced(function* (engine) {
      const [a1, a2, a3, a4] = [event("a", "bad"), event("a"), event("a", "worse"), event("a")] as const
      fails.for = new Set(["bad", "worse"])
      yield* handled(engine, [a1, a2, a3, a4])
      yield* retry(engine)
      yield* handled(engine, [])
      assert.deepStrictEqual(yield* statuses(engine.sql), ["parked 2", "parked 0", "parked 0", "parked 0"])
      fails.for.delete("bad")
      yield* retry(engine)
      yield* handled(engine, [])
      assert.deepStrictEqual(yield* orderOf(engine.sql), { a: idsOf([a1, a2]) })
      assert.deepStrictEqual(yield* statuses(engine.sql), ["retried 3", "retried 1", "parked 1", "parked 0"])
      const [root, , failed] = yield* letters(engine.sql)
      const [outcome] = yield* query("outcome", () => Letters.retryOutcome(engine.sql, [root!.id]))
      assert.deepInclude(outcome, {
        processed: 1,
        behind: 1,
        failed_behind: 1,
        failed: [{ id: failed!.id, error: "TypeError", message: `cannot handle ${a3.id}` }]
      })
      assert.strictEqual((yield* letters(engine.sql))[2]!.error, "TypeError")
      // an event that comes meanwhile waits too
      const a5 = event("a")
      yield* handled(engine, [a5])
      fails.for.clear()
      yield* retry(engine)
      yield* handled(engine, [])
      assert.deepStrictEqual(yield* orderOf(engine.sql), { a: idsOf([a1, a2, a3, a4, a5]) })
    })
  )
  test(
    "events that cannot be decoded or stored hold back their key as well",
    ordered,
    Effect.fnUntraced(function* (engine) {
      const [unread, a2, whole, b2] = [event("a"), event("a"), event("b", "whole"), event("b")]
      const record = { ...recordOf(events, unread, 2), value: "{}" }
      yield* engine.log.append(events.name, [record])
      yield* handled(engine, [a2, whole, b2, event("c")])
      assert.deepStrictEqual(Object.keys(yield* orderOf(engine.sql)), ["c"])
      // the letters behind one that PostgreSQL refuses are tried in ever smaller number
      yield* retry(engine)
      yield* handled(engine, [])
      assert.deepStrictEqual(Object.keys(yield* orderOf(engine.sql)), ["c"])
      for (const error of ["SchemaError", "Unstorable"]) {
        const found = yield* query("read", () => Letters.list(engine.sql, { error, statuses: ["parked"], limit: 9 }))
        yield* discardProjections({ sql: engine.sql, openLog: Effect.succeed(engine.log) }, found, "tester")
      }
      // those that waited hold the key until they are retried
      const b3 = event("b")
      yield* handled(engine, [b3])
      assert.deepStrictEqual(Object.keys(yield* orderOf(engine.sql)), ["c"])
      yield* retry(engine)
      yield* handled(engine, [])
      const order = yield* orderOf(engine.sql)
      assert.deepInclude(order, { a: a2!.id, b: idsOf([b2!, b3]) })
    })
  )
  test(
    "the order of keys holds in random runs",
    ordered,
    Effect.fnUntraced(function* (engine) {
      const sent: Array<ReturnType<typeof event>> = []
      for (let round = 0; round < 12; round++) {
        fails.for = round % 3 === 2 ? new Set() : new Set(["bad"])
        const values = Array.from({ length: 30 }, (_, i) => event(`k${i % 5}`, (i * 7 + round) % 11 === 0 ? "bad" : ""))
        sent.push(...values)
        yield* append(engine, events, values)
        const stop = yield* run(engine)
        if (round % 2 === 1) yield* retry(engine)
        yield* settled(engine)
        yield* stop
      }
      fails.for.clear()
      yield* retry(engine)
      yield* handled(engine, [])
      const expected = Map.groupBy(sent, ({ key }) => key)
      assert.deepStrictEqual(
        yield* orderOf(engine.sql),
        Object.fromEntries([...expected].map(([key, of]) => [key, idsOf(of)]).toSorted())
      )
    }),
    60_000
  )
})
