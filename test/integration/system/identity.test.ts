// Whose database it is: one application has it, commands of others are refused and change nothing, and copies are told apart.
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { ingest, migrate, status } from "../../../src/cli/commands.ts"
import { sql as sqlCommand } from "../../../src/cli/sql.ts"
import * as Dlq from "../../../src/cli/dlq-actions.ts"
import { subscribe } from "../../../src/cli/print-messages.ts"
import { topics } from "../../../src/cli/topics-actions.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import type { Database } from "../../../src/system/database.ts"
import { assertOwn, assertRegistered, claimDatabase, type IdentityDecision } from "../../../src/system/identity.ts"
import { openSystem } from "../../../src/system/system.ts"
import { applicationOf } from "../../support/named-applications.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
const directory = mkdtempSync(join(tmpdir(), "millrace-identity-"))
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(directory, { recursive: true, force: true })
})

const test = (title: string, body: (database: Database) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(
    title,
    () =>
      Effect.scoped(
        Effect.flatMap(databaseOn(url, 4), (own) => body({ ...own, embedded: false, failed: Effect.never }))
      ),
    60_000
  )
const [shop, flights] = [applicationOf("shop", "orders"), applicationOf("flights", "departures")]
const rows = (sql: Sql, text: string) => query("read", () => sql.unsafe<Array<Record<string, unknown>>>(text))
const registered = (sql: Sql) =>
  Effect.map(
    rows(
      sql,
      `select (select json_agg(name order by name) from millrace.projection) as projections, (select count(*) from millrace.progress) as partitions,
        (select json_agg(name order by name) from millrace.log_topic) as topics, (select application from millrace.system) as application`
    ),
    ([row]) => row
  )
const claim = (sql: Sql, decision: IdentityDecision = {}, usesBrokers = true) =>
  claimDatabase(shop, sql, { ...decision, usesBrokers })

describe("A database", () => {
  test("belongs to the first application that is started on it, and refuses every other, which registers nothing", (database) =>
    Effect.gen(function* () {
      const { sql } = database
      yield* Effect.scoped(openSystem(shop, database))
      const before = yield* registered(sql)
      assert.deepStrictEqual(before, {
        projections: ["orders"],
        partitions: 2,
        topics: ["orders.events", "orders.events.orders.dlq", "orders.ids"],
        application: "shop"
      })
      const error = yield* Effect.flip(Effect.scoped(openSystem(flights, database)))
      assert.strictEqual(
        error.message,
        "the database belongs to the application shop, and this one is called flights; a database has one application"
      )
      assert.match((error as { try: string }).try, /If shop was renamed to flights, .*millrace migrate --adopt/)
      for (const check of [assertOwn, assertRegistered])
        assert.strictEqual((yield* Effect.flip(check(flights, sql)))._tag, "ForeignDatabase")
      assert.deepStrictEqual(yield* registered(sql), before)
      yield* Effect.scoped(openSystem(shop, database))
    }))
  test("follows its application to another name with --adopt, and keeps the relays' names", (database) =>
    Effect.gen(function* () {
      const { sql } = database
      const shopIdentity = yield* claim(sql)
      const renamed = applicationOf("store", "orders")
      assert.strictEqual((yield* Effect.flip(Effect.scoped(openSystem(renamed, database))))._tag, "ForeignDatabase")
      yield* Effect.scoped(openSystem(renamed, database, { identity: { adopt: true } }))
      const { application, epoch, id, relayPrefix } = yield* claimDatabase(renamed, sql, { usesBrokers: true })
      assert.deepStrictEqual(
        { application, id, relayPrefix, epoch },
        { ...shopIdentity, application: "store", epoch: shopIdentity.epoch + 1 }
      )
      assert.strictEqual((yield* Effect.flip(Effect.scoped(openSystem(shop, database))))._tag, "ForeignDatabase")
    }))
  test("of a release without names is adopted by the application that has one of its projections, and by no other", (database) =>
    Effect.gen(function* () {
      const { sql } = database
      yield* query("prepare", () =>
        sql.unsafe(
          `insert into millrace.projection (name, version, declared, definition) values ('orders', 1, 1, '[]'), ('refunds', 1, 1, '[]')`
        )
      )
      const error = yield* Effect.flip(claimDatabase(flights, sql, { usesBrokers: false }))
      assert.match(error.message, /has the projections orders, refunds, and the application flights has none of them/)
      assert.strictEqual((yield* Effect.flip(assertOwn(flights, sql)))._tag, "ForeignDatabase")
      assert.strictEqual((yield* claim(sql)).application, "shop")
    }))
  test("has an id in its relays' names, unless it had relays on a broker before it had an id", (database) =>
    Effect.gen(function* () {
      const { sql } = database
      const { id, relayPrefix } = yield* claim(sql)
      assert.match(id, /^[0-9a-f]{8}$/)
      assert.strictEqual(relayPrefix, `millrace-relay/shop/${id}`)
      yield* query("as of an earlier release", () =>
        sql.unsafe(`update millrace.system set application = null, relay_prefix = null;
          insert into millrace.relay_grouping (target, lanes) values ('kafka', 1);
          insert into millrace.relay_lane values ('kafka', 0, 'millrace-relay/shop/0')`)
      )
      assert.strictEqual((yield* claim(sql)).relayPrefix, "millrace-relay/shop")
    }))
  test("that was restored from a dump is refused beside brokers until a person says what it is", (database) =>
    Effect.gen(function* () {
      const { sql } = database
      const original = yield* claim(sql)
      yield* query("as on another server", () =>
        sql.unsafe(`update millrace.system set home = '1/1';
          insert into millrace.relay_grouping (target, lanes) values ('kafka', 1);
          insert into millrace.relay_lane values ('kafka', 0, '${original.relayPrefix}/0')`)
      )
      const error = yield* Effect.flip(claim(sql))
      assert.match(error.message, /was restored from a dump of another server or database/)
      assert.match((error as { try: string }).try, /--adopt; if it is a copy beside the other: .*--new-identity/)
      // a copy has names of its own, and does not take over the original's producers
      const copy = yield* claim(sql, { newIdentity: true })
      assert.notStrictEqual(copy.id, original.id)
      assert.strictEqual(copy.relayPrefix, `millrace-relay/shop/${copy.id}`)
      assert.strictEqual((yield* rows(sql, "select * from millrace.relay_lane")).length, 0)
      assert.deepStrictEqual(yield* claim(sql), copy)
      // one that replaces the original keeps its names
      yield* query("moved again", () => sql.unsafe(`update millrace.system set home = '1/1'`))
      assert.deepStrictEqual(yield* claim(sql, { adopt: true }), copy)
      // a database alone shares nothing, so it is not asked about
      yield* query("and again", () => sql.unsafe(`update millrace.system set home = '1/1'`))
      assert.deepStrictEqual(yield* claim(sql, {}, false), copy)
    }))
})

describe("A command that does not start a system", () => {
  const config = fileURLToPath(new URL("../../support/named-applications.ts", import.meta.url))
  const shared = { config, data: directory, json: true }
  const filters = { ids: [], limit: 10, all: true, dryRun: false, rules: undefined, kind: undefined }
  const other = {
    subscription: undefined,
    rule: undefined,
    topic: undefined,
    key: undefined,
    error: undefined,
    since: undefined
  }
  const retry = (projection?: string) => Dlq.retry({ ...shared, ...filters, ...other, projection })
  /** Runs a command against a database; it must fail. */
  const refusal = (database: Database, command: Effect.Effect<unknown, unknown, Scope.Scope>) =>
    Effect.gen(function* () {
      process.env["MILLRACE_DATABASE_URL"] = database.url
      return (yield* Effect.flip(Effect.scoped(command))) as { readonly message: string; readonly try: string }
    }).pipe(Effect.ensuring(Effect.sync(() => delete process.env["MILLRACE_DATABASE_URL"])))

  test("is refused with another application's configuration, and registers nothing", (database) =>
    Effect.gen(function* () {
      const { sql } = database
      yield* Effect.scoped(openSystem(shop, database))
      const before = yield* registered(sql)
      for (const command of [
        retry(),
        status({ ...shared, maxAge: undefined, watch: false, partitions: false }),
        Dlq.list({ ...shared, ...filters, ...other, projection: undefined, status: "parked" }),
        Dlq.show({ ...shared, rules: undefined, id: "1" }),
        Dlq.discard({ ...shared, ...filters, ...other, projection: undefined }),
        migrate({ ...shared, adopt: false, newIdentity: false }),
        topics("apply", { ...shared, allowRepartition: false }),
        ingest({ ...shared, topic: undefined, file: "/dev/null" })
      ]) {
        const { message } = yield* refusal(database, command)
        assert.match(message, /belongs to the application shop, and this one is called flights/)
      }
      assert.deepStrictEqual(yield* registered(sql), before)
    }))
  test("does not register its own application either", (database) =>
    Effect.gen(function* () {
      const before = yield* registered(database.sql)
      const error = yield* refusal(database, ingest({ ...shared, topic: undefined, file: "/dev/null" }))
      assert.match(error.message, /is not prepared for the application flights yet$/)
      assert.deepStrictEqual(yield* registered(database.sql), before)
    }))
  test("names a misspelled projection and the one that was meant", (database) =>
    Effect.gen(function* () {
      yield* Effect.scoped(openSystem(flights, database))
      const error = yield* refusal(database, retry("depratures"))
      assert.strictEqual(error.message, "this database has no projection called 'depratures'")
      assert.strictEqual(error.try, "did you mean departures?")
      const unlike = yield* refusal(
        database,
        Dlq.list({ ...shared, ...filters, ...other, projection: "x", status: "parked" })
      )
      assert.strictEqual(unlike.try, "one of departures")
    }))
  it.live("does not create a state directory", () =>
    Effect.gen(function* () {
      const data = join(directory, "typo")
      const options = { ...shared, data }
      for (const command of [
        status({ ...options, maxAge: undefined, watch: false, partitions: false }),
        sqlCommand({ data, query: "select 1", format: "json", write: false }),
        subscribe({ ...options, topic: "t", type: "shared", name: undefined, from: "latest", seek: false, max: 1 }),
        ingest({ ...options, topic: undefined, file: "/dev/null" }),
        topics("plan", { ...options, allowRepartition: false })
      ] as ReadonlyArray<Effect.Effect<unknown, unknown, Scope.Scope>>) {
        const error = (yield* Effect.flip(Effect.scoped(command))) as Error
        assert.strictEqual(
          error.message,
          `there is no database: MILLRACE_DATABASE_URL is not set, and ${data} has no embedded one`
        )
        assert.isFalse(existsSync(data))
      }
    })
  )
})
