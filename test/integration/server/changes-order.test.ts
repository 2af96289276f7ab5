// Views that are followed over real HTTP, on embedded PostgreSQL: every change once and in order while transactions overlap, clients come and go, and a
// build is promoted.
import { setTimeout } from "node:timers/promises"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, test } from "vitest"
import { connect, session, type Session, type Sql } from "../../../src/postgres/client/client.ts"
import { closeGate, openGate } from "../../../src/postgres/store/gate.ts"
import { get } from "../../support/http.ts"
import { followView, type Got, type Row } from "../../support/follow.ts"
import { startViews } from "../../support/views.ts"

let server: Awaited<ReturnType<typeof startViews>>
const scope = Scope.makeUnsafe()
/** Connections of writers. */
let writing: Sql
const changesOf = (view: string) => () => `${server.url}/v1/views/${view}/changes`
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
const writer = () => run(session(writing))
const inTransaction = async <A>(tx: Session, use: () => Promise<A>): Promise<A> => {
  await tx.unsafe("begin")
  const result = await use()
  await tx.unsafe("commit")
  return result
}
/** Writers share this lock, and a promotion has it alone. */
const writersLock = 42

beforeAll(async () => {
  server = await startViews({ limits: { eventLoopDelayMs: 0, heartbeatMs: 100 } })
  writing = await run(connect(server.database.url, { max: 12, searchPath: "public" }))
  await server.sql`create table public.counter (key text primary key, version int8 not null default 0)`
  await server.sql`create table public.truth (key text, version int8, op text, primary key (key, version))`
}, 60_000)
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  await server.stop()
})

/** Changes a row, and notes the change under the same lock: the order of `truth` is the order in which changes of a key become visible. */
const change = async (tx: Session, schema: string, key: string, op: "upsert" | "delete"): Promise<void> => {
  const [counted] = await tx.unsafe<Array<{ readonly version: number }>>(
    "insert into public.counter as c (key, version) values ($1, 1) on conflict (key) do update set version = c.version + 1 returning version",
    [key]
  )
  const version = counted!.version
  const done =
    op === "delete"
      ? await tx.unsafe(`delete from ${schema}.accounts where id = $1 returning 1`, [key])
      : await tx.unsafe(
          `insert into ${schema}.accounts (id, tenant, cents, open, tags) values ($1, 'acme', $2, $3, '[]')
          on conflict (id) do update set cents = excluded.cents, open = excluded.open returning 1`,
          [key, version, version % 3 !== 0]
        )
  if (done.length > 0)
    await tx.unsafe("insert into public.truth (key, version, op) values ($1, $2, $3)", [key, version, op])
}
/** One transaction of a writer: changes some rows of the live build in the order of their keys, with pauses between. */
const write = (tx: Session, keys: ReadonlyArray<string>, pauseMs: () => number): Promise<void> =>
  inTransaction(tx, async () => {
    await tx`select pg_advisory_xact_lock_shared(${writersLock})`
    const [live] = await tx<
      Array<{ readonly version: number }>
    >`select version from millrace.live where projection = 'keeper'`
    // an id before it changes anything: transactions end in another order than they began
    await tx`select pg_current_xact_id()::text`
    for (const key of keys) {
      await setTimeout(pauseMs())
      await change(tx, `keeper_v${live!.version}`, key, Math.random() < 0.25 ? "delete" : "upsert")
    }
    await setTimeout(pauseMs())
  })

type Truth = ReadonlyMap<string, ReadonlyArray<{ readonly version: number; readonly op: string }>>
const readTruth = async (): Promise<Truth> =>
  Map.groupBy(
    await server.sql<Array<{ readonly key: string; readonly version: number; readonly op: string }>>`
      select key, version, op from public.truth order by key, version`,
    ({ key }) => key
  )
/**
 * What is wrong with what a client without filters got of each key, each time that it began with a snapshot: gaps, repetitions, and changes out of
 * order; the last time up to the last change.
 */
const faultsOf = (got: ReadonlyArray<Got>, truth: Truth): ReadonlyArray<string> => {
  const begun = [...got.keys()].filter((i) => got[i]!.event === "snapshot")
  return begun.flatMap((from, i) => {
    const byKey = Map.groupBy(
      got.slice(from + 1, begun[i + 1]).filter(({ event }) => event !== "live"),
      ({ data }) => String(data["id"])
    )
    const isLast = i === begun.length - 1
    return [...truth].flatMap(([key, steps]) => {
      const own = byKey.get(key) ?? []
      if (own.length === 0) return isLast && steps.at(-1)!.op !== "delete" ? [`${key} is missing`] : []
      const start = steps.findIndex(({ version }) => version === own[0]!.data["cents"])
      const all = steps.slice(start).map(({ op, version }) => (op === "delete" ? "deleted" : version))
      const actual = own.map(({ data, event }) => (event === "delete" ? "deleted" : data["cents"]))
      const expected = isLast ? all : all.slice(0, actual.length)
      const isSame = start >= 0 && JSON.stringify(actual) === JSON.stringify(expected)
      return isSame ? [] : [`${key}: ${JSON.stringify(actual)}, and not ${JSON.stringify(expected)}`]
    })
  })
}
const sorted = (rows: Iterable<Row>) => [...rows].toSorted((a, b) => (String(a["id"]) < String(b["id"]) ? -1 : 1))

test("every client ends with the table, after each change of a key once and in order, while transactions overlap, clients disconnect and a build is promoted", async () => {
  const keys = Array.from({ length: 30 }, (_, i) => `k${String(i).padStart(2, "0")}`)
  const some = (most: number) => keys.filter(() => Math.random() < most / keys.length)
  const sessions = await Promise.all(Array.from({ length: 8 }, writer))
  await write(sessions[0]!, some(20), () => 0)
  const client = (query: string, last: string, where: (row: Row) => boolean) => ({
    follower: followView(changesOf("accounts"), query),
    last,
    where
  })
  // the last rows that are written are the last ones that a client gets, also of a snapshot, which is in the order of the ids
  const clients = [
    client("", "last-shut", () => true),
    client("", "last-shut", () => true),
    client("", "last-shut", () => true),
    client("?open=true", "last-open", ({ open }) => open === true),
    client("?open=false&id.gte=k10", "last-shut", ({ id, open }) => open === false && String(id) >= "k10")
  ]
  const ends: Array<string | undefined> = []
  const following = clients.map(async ({ follower, last }, i) => {
    while (!follower.rows.has(last)) {
      // the first one stays connected for long, the others come and go
      const most = i === 0 ? 400 : 1 + Math.floor(Math.random() * 25)
      ends.push(await follower.run(most, () => follower.rows.has(last)))
    }
  })
  const state = { isWriting: true }
  const writers = sessions.map(async (tx, i) => {
    // one of them is slow: its transactions are open while many others begin and end
    while (state.isWriting) await write(tx, some(4), i === 0 ? () => 100 * Math.random() : () => 4 * Math.random())
  })
  const written = async (most: number) => {
    while ((await server.sql`select from public.truth`).length < most) await setTimeout(20)
  }
  await written(400)
  // a build with the same rows takes over, as a promotion does it: the gate, and the switch while nothing is written
  const promoter = await writer()
  await promoter.unsafe("create schema keeper_v2")
  for (const table of ["accounts", "ledger", "prices", "hourly"])
    await promoter.unsafe(`create table keeper_v2.${table} (like keeper_v1.${table} including all)`)
  await run(openGate(server.sql, "keeper", { live: 1, next: 2 }, performance.now() + 10_000))
  await inTransaction(promoter, async () => {
    await promoter`select pg_advisory_xact_lock(${writersLock})`
    await promoter.unsafe("insert into keeper_v2.accounts select * from keeper_v1.accounts")
    await promoter`update millrace.live set version = 2 where projection = 'keeper'`
    await promoter`insert into millrace.promotion (token, projection, old, new) values (gen_random_uuid(), 'keeper', 1, 2)`
  })
  await run(closeGate(server.sql, "keeper", performance.now() + 2_000))
  await written(800)
  state.isWriting = false
  await Promise.all(writers)
  await server.sql.unsafe(`insert into keeper_v2.accounts (id, tenant, cents, open, tags)
    values ('last-open', 'acme', 0, true, '[]'), ('last-shut', 'acme', 0, false, '[]')`)
  await Promise.all(following)

  const truth = await readTruth()
  const table = (await get<{ readonly rows: ReadonlyArray<Row> }>(`${server.url}/v1/views/accounts?limit=1000`)).body
    .rows
  for (const { follower, where } of clients) {
    expect(follower.faults).toEqual([])
    expect(sorted(follower.rows.values())).toEqual(table.filter(where))
  }
  for (const { follower } of clients.slice(0, 3)) expect(faultsOf(follower.got, truth)).toEqual([])
  expect(ends).toContain("view_replaced")
}, 60_000)
