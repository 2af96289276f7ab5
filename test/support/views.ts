// An application with views of every kind on a PostgreSQL server, and a server of it, for tests over real HTTP.
import { expect } from "vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { Schema } from "effect"
import * as Scope from "effect/Scope"
import { Agg, Application, Column, Event, Projection, ReadModel, Topic, Window } from "../../src/index.ts"
import { connect } from "../../src/postgres/client/client.ts"
import { reader, readerPassword } from "../../src/postgres/embedded/roles.ts"
import type { ServeOptions } from "../../src/server/server.ts"
import { changeSource } from "../../src/server/changes/source.ts"
import { viewReader } from "../../src/server/views/reader.ts"
import { openQueries } from "../../src/system/database.ts"
import { openSystem } from "../../src/system/system.ts"
import { start } from "./http.ts"
import { server as postgres } from "./postgres.ts"

const Paid = Event.make("paid", { id: Schema.String, tenant: Schema.String, cents: Schema.Int, at: Schema.Int })
const payments = Topic.events("payments.v1", { events: [Paid], key: "id", eventTime: "at", partitions: 2 })
const accounts = ReadModel.table("accounts", {
  columns: {
    id: Schema.String,
    tenant: Schema.String,
    cents: Schema.Int,
    rate: Schema.NullOr(Schema.Finite),
    open: Schema.Boolean,
    at: Schema.NullOr(Column.timestamptz),
    tags: Schema.Array(Schema.String),
    order: Schema.NullOr(Schema.String)
  },
  primaryKey: ["id"]
})
const ledger = ReadModel.table("ledger", {
  columns: { n: Schema.Int, owner: Schema.String },
  primaryKey: ["n"],
  tenant: "owner"
})
const prices = ReadModel.table("prices", {
  columns: { code: Schema.String, cents: Schema.Int },
  primaryKey: ["code"]
})
const hourly = Window.tumbling("hourly", {
  size: "1 hour",
  key: { id: Schema.String },
  aggregate: { payments: Agg.count }
})
const studios = Window.global("studios", {
  key: { studio: Schema.String, id: Schema.String },
  aggregate: { payments: Agg.count },
  tenant: "studio"
})
const noted = Topic.records("noted.v1", {
  value: { id: Schema.String, cents: Schema.Int },
  key: "id",
  partitions: 2
})
const totals = ReadModel.table("totals", {
  columns: { id: Schema.String, cents: Schema.Int },
  primaryKey: ["id"]
})
/** It reads what the first projection publishes. */
const adder = Projection.make({
  name: "adder",
  version: 1,
  source: noted,
  writes: [totals],
  handle: ({ cents, id }, out) => out.upsert(totals, { id, cents })
})
const keeper = Projection.make({
  name: "keeper",
  version: 1,
  source: payments,
  writes: [accounts, ledger, prices, hourly, studios, noted],
  handle: {
    paid: ({ at, cents, id, tenant }, out) => {
      out.upsert(accounts, { id, tenant, cents, rate: null, open: true, at, tags: [], order: null })
      out.add(hourly, { id, payments: 1 })
      out.add(studios, { studio: tenant, id, payments: 1 })
      out.publish(noted, { id, cents })
    }
  }
})
const wide = ReadModel.view("wide", {
  query:
    "select 9007199254740993::bigint as large, 123456789012345678901234567890.123456789::numeric as exact, 'NaN'::float8 as odd, '2026-01-01T12:00:00.123456Z'::timestamptz as at, array[1,2] as list, '{\"n\":12345678901234567890}'::json as doc"
})
const levels = ReadModel.view("levels", { query: "select open, tenant from accounts" })
export const application = Application.make({
  name: "accounts",
  projections: [Projection.async(keeper), Projection.async(adder)],
  views: [wide, levels]
})

/** The body of an answer. */
export interface Page {
  readonly view: string
  readonly rows: ReadonlyArray<Readonly<Record<string, unknown>>>
  readonly next: string | null
  readonly previous?: string | null
  readonly error?: { readonly code: string; readonly message: string; readonly try: string }
}
/** Reads a view with a primary key page by page of one row, to the last and back, and expects the rows that it has, in each order. */
export const readBothWays = async (url: string, view: string, orders: ReadonlyArray<string>): Promise<void> => {
  for (const order of orders) await readOneWayAndBack(url, view, order)
}
const readOneWayAndBack = async (url: string, view: string, order: string) => {
  const get = async (more: string): Promise<Page> =>
    (await (await fetch(`${url}/v1/views/${view}?order=${order}&${more}`)).json()) as Page
  const idOf = ({ rows: [row] }: Page) => row!["id"]
  const ids = (await get("limit=1000")).rows.map(({ id }) => id)
  expect(ids.length).toBeGreaterThan(2)
  const there = [await get("limit=1")]
  while (there.at(-1)!.next !== null) there.push(await get(`limit=1&after=${there.at(-1)!.next}`))
  const back = [there.at(-1)!]
  while (typeof back.at(-1)!.previous === "string") back.push(await get(`limit=1&after=${back.at(-1)!.previous}`))
  expect([there.map(idOf), back.map(idOf)], order).toEqual([ids, ids.toReversed()])
  // the first page of a request without a cursor does not say whether there are others before it: there are none
  expect([there[0]!.previous, back.at(-1)!.previous]).toEqual([undefined, null])
  expect(idOf(await get(`limit=1&after=${back.at(-1)!.next}`))).toBe(ids[1])
}
/** Values of parameters that clients must not send. */
export const hostile = [
  "'; delete from keeper_v1.accounts; --",
  '"; drop schema millrace cascade; --',
  "$1) or true --",
  "1 union select secret from millrace.api_key",
  "\u0000",
  "a\u0000b",
  "{a,b}",
  '{"$gt":""}',
  "[[[[[[",
  "\\",
  "\u202e\ud83d\ude00",
  "1e99999",
  "NaN",
  "infinity",
  "-0",
  "99999999999999999999",
  "0000-00-00",
  "2026-02-31T25:61:00Z",
  "9".repeat(5_000)
]

/** Starts the application on an embedded server of its own. `reading` is the URL of the role that only reads. */
export const startViews = async (options: Partial<ServeOptions> = {}, queryMs = 10_000) => {
  const scope = Scope.makeUnsafe()
  const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
  const url = await run(postgres)
  const sql = await run(connect(url, { max: 4, searchPath: "public" }))
  const reading = new URL(url)
  reading.username = reader
  reading.password = readerPassword(reading.password)
  const database = { url, readerUrl: reading.href, sql, embedded: false, failed: Effect.never }
  const app = application as unknown as ServeOptions["application"]
  const system = await run(openSystem(app, database))
  const queries = await run(openQueries(database, queryMs))
  const views = viewReader(queries, sql)
  const changes = changeSource(queries, sql)
  const server = await start(
    { application: app, views, changes, limits: { eventLoopDelayMs: 0 }, ...options },
    system.log
  )
  const stop = async () => {
    await server.stop()
    await Effect.runPromise(Scope.close(scope, Exit.void))
  }
  return { ...server, database, views, changes, sql, system, stop }
}
