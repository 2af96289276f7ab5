// Views that are followed over real HTTP, on embedded PostgreSQL: what a client gets of rows, filters, tenants and positions, and when the rows come again.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { connect, session, type Session, type Sql } from "../../../src/postgres/client/client.ts"
import { createApiKey } from "../../../src/postgres/store/api-keys.ts"
import { get, start, stream } from "../../support/http.ts"
import { asSuperuser } from "../../support/postgres.ts"
import { ApiKeys, newApiKey } from "../../../src/server/access/api-keys.ts"
import { followView, type Got } from "../../support/follow.ts"
import { startViews } from "../../support/views.ts"
import { webSocket } from "../../support/websocket.ts"

let server: Awaited<ReturnType<typeof startViews>>
const scope = Scope.makeUnsafe()
/** Connections of writers. */
let writing: Sql
const changesOf = (view: string) => () => `${server.url}/v1/views/${view}/changes`
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
const writer = () => run(session(writing))
beforeAll(async () => {
  server = await startViews({ limits: { eventLoopDelayMs: 0, heartbeatMs: 100 } })
  writing = await run(connect(server.database.url, { max: 12, searchPath: "public" }))
}, 60_000)
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  await server.stop()
})

/** The table of the build that is live. */
const live = async (table: string): Promise<string> => {
  const [row] = await server.sql<
    Array<{ readonly version: number }>
  >`select version from millrace.live where projection = 'keeper'`
  return `keeper_v${row!.version}.${table}`
}
const account = async (id: string, cents: number, open = true, more = ""): Promise<void> => {
  await server.sql.unsafe(
    `insert into ${await live("accounts")} (id, tenant, cents, open, tags) values ($1, 'acme', $2, $3, '[]') on conflict (id) do update set cents = excluded.cents, open = excluded.open ${more}`,
    [id, cents, open]
  )
}
const events = (got: ReadonlyArray<Got>) =>
  got.map(({ data, event }) => [event, data["id"] ?? data["reason"], data["cents"]].filter((one) => one !== undefined))
/** Follows until this many messages came. */
const take = async (follower: ReturnType<typeof followView>, messages: number) => {
  const until = follower.got.length + messages
  while (follower.got.length < until) await follower.run(1_000, () => follower.got.length >= until)
  return events(follower.got.slice(until - messages))
}

describe("a client", () => {
  test("has an id with the opening, and gets the same from there as if it had not been disconnected", async () => {
    await account("first", 1)
    const follower = followView(changesOf("accounts"), "?id.prefix=first")
    expect(await follower.run(2)).toBe(undefined)
    const opening = follower.id()
    expect(opening).toMatch(/^c1\./)
    expect(follower.got).toEqual([])
    expect(await take(follower, 3)).toEqual([["snapshot", "start"], ["upsert", "first", 1], ["live"]])
    await account("first", 2)
    expect(await take(follower, 1)).toEqual([["upsert", "first", 2]])
    // from the id in the middle of the rows: without those that it has
    const behind = follower.id()
    await account("first", 3)
    const again = await stream(`${changesOf("accounts")()}?id.prefix=first&from=${behind}`)
    expect((await again.frame())?.comment ?? "").toBe("")
    expect((await again.records(1)).map(({ data }) => JSON.parse(data!).cents)).toEqual([3])
    again.close()
  })

  test("gets changes of a key in the order of their commits, whatever ids their transactions have, and is not kept waiting by open ones", async () => {
    await account("order", 0)
    const follower = followView(changesOf("accounts"), "?id=order")
    await take(follower, 3)
    const [early, other, late] = await Promise.all([writer(), writer(), writer()])
    const begin = async (tx: Session) => {
      await tx.unsafe("begin")
      await tx`select pg_current_xact_id()::text`
    }
    const table = await live("accounts")
    const set = (tx: Session, cents: number) => tx.unsafe(`update ${table} set cents = $1 where id = 'order'`, [cents])
    // ids in this order; the one in the middle stays open
    for (const tx of [early, other, late]) await begin(tx)
    await set(late, 1)
    await late.unsafe("commit")
    expect(await take(follower, 1)).toEqual([["upsert", "order", 1]])
    await set(early, 2)
    await early.unsafe("commit")
    expect(await take(follower, 1)).toEqual([["upsert", "order", 2]])
    await set(other, 3)
    await other.unsafe("commit")
    expect(await take(follower, 1)).toEqual([["upsert", "order", 3]])
    // both while the client is away
    for (const tx of [early, other, late]) await begin(tx)
    await set(late, 4)
    await late.unsafe("commit")
    await set(early, 5)
    await early.unsafe("commit")
    expect(await take(follower, 2)).toEqual([
      ["upsert", "order", 4],
      ["upsert", "order", 5]
    ])
    await other.unsafe("rollback")
  })

  test("gets a row that begins to fit its filter as an upsert, and one that no longer fits as a delete", async () => {
    const follower = followView(changesOf("accounts"), "?open=true&id.prefix=fit")
    await take(follower, 2)
    await account("fit-a", 1, false)
    await account("fit-a", 2, true)
    await account("fit-a", 2, true)
    await account("fit-a", 3, true)
    await account("fit-a", 4, false)
    await account("fit-a", 5, false)
    const table = await live("accounts")
    await server.sql.unsafe(
      `insert into ${table} (id, tenant, cents, open, tags) values ('fit-b', 'acme', 6, true, '[]')`
    )
    await server.sql.unsafe(`update ${table} set id = 'fit-c' where id = 'fit-b'`)
    await server.sql.unsafe(`delete from ${table} where id like 'fit-%'`)
    const got = await take(follower, 7)
    // a change of a primary key is a delete and an upsert, in any order
    expect([...got.slice(0, 4), ...got.slice(4, 6).toSorted(), ...got.slice(6)]).toEqual([
      ["upsert", "fit-a", 2],
      ["upsert", "fit-a", 3],
      ["delete", "fit-a"],
      ["upsert", "fit-b", 6],
      ["delete", "fit-b"],
      ["upsert", "fit-c", 6],
      ["delete", "fit-c"]
    ])
  })

  test("gets rows exactly as pages have them, with every digit, also those that COPY loads", async () => {
    const opened = await stream(`${changesOf("accounts")()}?id.prefix=exact`)
    await opened.records(2)
    const table = await live("accounts")
    await server.sql.unsafe(`insert into ${table} (id, tenant, cents, rate, open, at, tags, "order") values
      ('exact-1', 'acme', 9007199254740991, 0.1, true, '2026-01-01T12:00:00.123456Z', '[{"n": 12345678901234567890.10}, null]', E'a\\n"\\u2028'),
      ('exact-2', 'acme', -5, 'NaN', false, null, '[]', null)`)
    // by another role than that of the application
    const admin = await run(asSuperuser(server.database.url))
    await admin.unsafe(
      `copy ${table} (id, tenant, cents, open, tags) from program 'printf "exact-3\\tacme\\t7\\ttrue\\t[]\\n"'`
    )
    const frames = await opened.records(3)
    const page = await (await fetch(`${server.url}/v1/views/accounts?id.prefix=exact`)).text()
    for (const { data } of frames) expect(page).toContain(data)
    opened.close()
  })

  test("gets every row and change once when there are more than are read at once, also if it resumes in the middle", async () => {
    const table = await live("ledger")
    await server.sql.unsafe(`insert into ${table} select n, 'acme' from generate_series(1, 3500) n`)
    const rows = new Map<number, string>()
    const counts = new Map<string, number>()
    let last = ""
    const state = { isLive: false, received: 0 }
    const read = async (most: number, isDone: () => boolean) => {
      const opened = await stream(changesOf("ledger")(), last === "" ? {} : { "last-event-id": last })
      for (let n = 0; n < most && !isDone(); n++) {
        const frame = (await opened.frame())!
        if (frame.event === "snapshot") rows.clear()
        if (frame.event === "live") state.isLive = true
        const { n: key, owner } = JSON.parse(frame.data ?? "{}") as { readonly n?: number; readonly owner?: string }
        if (frame.event === "delete") rows.delete(key!)
        if (frame.event === "upsert") {
          rows.set(key!, owner!)
          counts.set(`${key} ${owner}`, (counts.get(`${key} ${owner}`) ?? 0) + 1)
        }
        state.received++
        if (frame.id !== undefined) last = frame.id
      }
      opened.close()
    }
    // between pages of rows, rows that the client has change, and rows that it does not have yet
    for (let step = 0; !state.isLive; step++) {
      await read(900, () => state.isLive)
      await server.sql.unsafe(`update ${table} set owner = $1 where n in (5, 1800, 3300)`, [`step-${step}`])
      await server.sql.unsafe(`delete from ${table} where n in ($1::int8, $2::int8)`, [100 + step, 3_400 + step])
    }
    // one transaction with more changes than are read at once
    await server.sql.unsafe(`update ${table} set owner = 'large' where n <= 3000`)
    const hasAll = () => [...rows.values()].filter((owner) => owner === "large").length === 3_000 - deleted
    const deleted = 3_000 - ((await server.sql.unsafe(`select from ${table} where n <= 3000`)).length as number)
    while (!hasAll()) await read(700, hasAll)
    expect([...counts].filter(([, count]) => count > 1)).toEqual([])
    const held = await server.sql.unsafe<Array<{ readonly n: number; readonly owner: string }>>(
      `select n, owner from ${table} order by n`
    )
    expect([...rows].toSorted(([a], [b]) => a - b)).toEqual(held.map(({ n, owner }) => [n, owner]))
    expect(state.received).toBeGreaterThan(6_000)
    await server.sql.unsafe(`delete from ${table}`)
  })

  test("gets changes alone with from=latest, and the same messages by WebSocket", async () => {
    await account("late", 1)
    const client = await webSocket(`${changesOf("accounts")()}?from=latest&id=late`)
    const first = await client.next()
    expect(first).toEqual({ event: "position", id: expect.stringMatching(/^c1\./) })
    await account("late", 2)
    const [change] = await client.records(1)
    expect(change).toMatchObject({ event: "upsert", data: { id: "late", cents: 2 } })
    client.close()
    await account("late", 3)
    const resumed = await webSocket(`${changesOf("accounts")()}?id=late&from=${change!.id}`)
    expect((await resumed.records(1))[0]).toMatchObject({ event: "upsert", data: { cents: 3 } })
    resumed.close()
    const { refused } = await webSocket(`${changesOf("levels")()}`)
    expect([refused?.status, refused?.body.error.code]).toEqual([400, "not_followable"])
  })

  test("is refused what cannot be followed, with what to do", async () => {
    const refusal = async (path: string) => {
      const { body, status } = await get(`${server.url}/v1/views/${path}`)
      return [status, body.error.code, body.error.try]
    }
    const follower = followView(changesOf("accounts"), "?id=late")
    await follower.run(2)
    expect(await refusal("levels/changes")).toEqual([
      400,
      "not_followable",
      "follow the tables that it reads (of accounts, hourly, ledger, prices, studios, totals), and read /v1/views/levels again when they change"
    ])
    expect((await refusal("acounts/changes")).slice(0, 2)).toEqual([404, "unknown_view"])
    expect(await refusal("accounts/changes?cent=1")).toEqual([400, "unknown_column", "did you mean cents?"])
    expect((await refusal("accounts/changes?order=id"))[1]).toBe("invalid_parameter")
    expect((await refusal("accounts/changes?from=nothing"))[1]).toBe("invalid_parameter")
    expect((await refusal(`accounts/changes?id=other&from=${follower.id()}`)).slice(0, 2)).toEqual([
      400,
      "invalid_cursor"
    ])
    // a value that PostgreSQL refuses is refused to the client alone
    expect((await refusal("accounts/changes?rate=1e999")).slice(0, 2)).toEqual([400, "invalid_parameter"])
  })
})

describe("a credential of a tenant", () => {
  let closed: Awaited<ReturnType<typeof start>>
  const keys = new Map<string, string>()
  beforeAll(async () => {
    for (const tenant of ["acme", "globex"]) {
      const { digest, id, text } = newApiKey()
      await run(createApiKey(server.sql, { id, digest, name: tenant, tenant, scopes: ["read"], validMs: undefined }))
      keys.set(tenant, text)
    }
    const { changes, system, views } = server
    const access = { isRequired: true, keys: new ApiKeys(server.sql) }
    const limits = { eventLoopDelayMs: 0, heartbeatMs: 100 }
    closed = await start({ application: system.application, views, changes, access, limits }, server.log)
  })
  afterAll(() => closed.stop())
  const as = (tenant: string, path: string) => ({
    url: `${closed.url}/v1/views/${path}`,
    headers: { authorization: `Bearer ${keys.get(tenant)}` }
  })

  test("gets the rows and changes of its tenant alone, whatever the request asks for, and no position of another", async () => {
    const table = await live("accounts")
    const put = (id: string, tenant: string, cents: number) =>
      server.sql.unsafe(
        `insert into ${table} (id, tenant, cents, open, tags) values ($1, $2, $3, true, '[]') on conflict (id) do update set tenant = excluded.tenant, cents = excluded.cents`,
        [id, tenant, cents]
      )
    await put("t-a", "acme", 1)
    await put("t-g", "globex", 1)
    const query = "?id.prefix=t-"
    const own = { acme: as("acme", "accounts/changes"), globex: as("globex", "accounts/changes") }
    const acme = followView(() => own.acme.url, query, own.acme.headers)
    const globex = followView(() => own.globex.url, query, own.globex.headers)
    expect(await take(acme, 3)).toEqual([["snapshot", "start"], ["upsert", "t-a", 1], ["live"]])
    expect(await take(globex, 3)).toEqual([["snapshot", "start"], ["upsert", "t-g", 1], ["live"]])
    await put("t-g", "globex", 2)
    await put("t-a", "acme", 2)
    // a row that changes hands: it goes for the one, and comes for the other
    await put("t-g", "acme", 3)
    await server.sql.unsafe(`delete from ${table} where id like 't-%'`)
    const sorted = (list: ReadonlyArray<ReadonlyArray<unknown>>) => [...list.slice(0, 2), ...list.slice(2).toSorted()]
    expect(sorted(await take(acme, 4))).toEqual([
      ["upsert", "t-a", 2],
      ["upsert", "t-g", 3],
      ["delete", "t-a"],
      ["delete", "t-g"]
    ])
    expect(await take(globex, 2)).toEqual([
      ["upsert", "t-g", 2],
      ["delete", "t-g"]
    ])
    const asked = followView(() => own.acme.url, "?tenant=globex", own.acme.headers)
    expect(await take(asked, 2)).toEqual([["snapshot", "start"], ["live"]])
    const stolen = await get(`${own.acme.url}${query}&from=${globex.id()}`, own.acme.headers)
    expect([stolen.status, stolen.body.error.code]).toEqual([400, "invalid_cursor"])
    const { headers, url } = as("acme", "prices/changes")
    expect((await get(url, headers)).body.error.code).toBe("not_by_tenant")
    // of a view that it may not read it learns no more; of one that it may read, what to follow, among what it may read
    const refusals = ["wide", "levels"].map(async (name) => {
      const view = as("acme", `${name}/changes`)
      const { body } = await get(view.url, view.headers)
      return [body.error.code, body.error.try.match(/\(of (.*)\)/)?.[1]]
    })
    expect(await Promise.all(refusals)).toEqual([
      ["not_by_tenant", undefined],
      ["not_followable", "accounts, ledger, studios"]
    ])
    expect((await get(url)).status).toBe(401)
  })
})

describe("the rows come again, with the reason,", () => {
  test("when the table was truncated", async () => {
    await account("cut", 1)
    const follower = followView(changesOf("accounts"), "?id.prefix=cut")
    await take(follower, 3)
    await server.sql.unsafe(`truncate ${await live("accounts")}`)
    await account("cut-2", 2)
    expect(await take(follower, 3)).toEqual([["snapshot", "view_replaced"], ["upsert", "cut-2", 2], ["live"]])
    expect([...follower.rows.keys()]).toEqual(["cut-2"])
  })

  test("when changes were deleted that the client does not have, and not to one that has them", async () => {
    const [away, there] = [
      followView(changesOf("accounts"), "?id.prefix=old"),
      followView(changesOf("accounts"), "?id.prefix=old&open=true")
    ]
    await take(away, 2)
    await take(there, 2)
    await account("old", 1)
    await take(there, 1)
    /** Until a heartbeat has brought a later position, which is not among changes. */
    const settle = async () => {
      const before = there.id()
      while (there.id() === before || !there.id()!.endsWith("...")) await there.run(4)
    }
    await settle()
    const [journal] = await server.sql<
      Array<{ readonly id: string }>
    >`select max(journal_id)::text as id from millrace.row_journal where view = 'accounts'`
    const prune = () => server.sql`select millrace.prune_row_journal(${journal!.id}::int8, interval '0', 1)`
    // deletes what the mark before sees
    await prune()
    await settle()
    await prune()
    await account("old", 2)
    expect(await take(there, 1)).toEqual([["upsert", "old", 2]])
    expect(await take(away, 3)).toEqual([["snapshot", "changes_expired"], ["upsert", "old", 2], ["live"]])
  })

  test("when nobody has followed the table for ten minutes, after which nothing of it is noted any more", async () => {
    const follower = followView(changesOf("accounts"), "?id.prefix=gap")
    await take(follower, 2)
    const triggers = async () =>
      (
        await server.sql`select from pg_trigger where tgname like 'millrace_changes_%' and tgrelid = ${await live("accounts")}::regclass`
      ).length
    expect(await triggers()).toBe(4)
    // nobody prolongs what is over
    const lapse = () => server.sql`update millrace.row_follower set until = now() - interval '1 second'`
    await lapse()
    const noted = async () => (await server.sql`select from millrace.row_change`).length
    const before = await noted()
    await account("gap", 1)
    expect(await noted()).toBe(before)
    expect(await take(follower, 3)).toEqual([["snapshot", "changes_expired"], ["upsert", "gap", 1], ["live"]])
    const isTidy = async () => {
      await lapse()
      await server.changes.tidy()
      return (await triggers()) + (await server.sql`select from millrace.row_journal`).length + (await noted())
    }
    await expect.poll(isTidy, { timeout: 20_000 }).toBe(0)
  })
})
