// Views over real HTTP, on embedded PostgreSQL: filters and values of every type, pages while rows change, hostile input, and two tenants.
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { query, transaction } from "../../../src/postgres/client/client.ts"
import { createApiKey } from "../../../src/postgres/store/api-keys.ts"
import { ApiKeys, newApiKey } from "../../../src/server/access/api-keys.ts"
import { viewReader } from "../../../src/server/views/reader.ts"
import { openQueries } from "../../../src/system/database.ts"
import { runProjections, runRelay } from "../../../src/system/system.ts"
import { json, start } from "../../support/http.ts"
import { asSuperuser } from "../../support/postgres.ts"
import { hostile, type Page, readBothWays, startViews } from "../../support/views.ts"

let server: Awaited<ReturnType<typeof startViews>>
let closed: Awaited<ReturnType<typeof start>>
const keys = new Map<string, string>()

const get = async (path: string, headers: Readonly<Record<string, string>> = {}, from = server.url) => {
  const response = await fetch(`${from}/v1/views${path}`, { headers })
  const text = await response.text()
  const body = (text === "" ? {} : JSON.parse(text)) as Page
  return { status: response.status, headers: response.headers, text, body, ids: body.rows?.map(({ id }) => id) }
}
const refusal = async (path: string) => {
  const { body, status } = await get(path)
  return [status, body.error?.code, body.error?.try]
}

beforeAll(async () => {
  server = await startViews()
  const { sql } = server
  await sql.unsafe(`insert into keeper_v1.accounts (id, tenant, cents, rate, open, at, tags, "order") values
    ('a', 'acme', 100, 0.1, true, '2026-01-01T12:00:00Z', '["x"]', null), ('b', 'acme', 9007199254740991, null, false, '2026-01-01T12:00:00.5Z', '[]', 'first'),
    ('c''d', 'globex', -5, 1e300, true, null, '["x","y"]', null)`)
  await sql.unsafe(
    "insert into keeper_v1.ledger select n, case n % 2 when 0 then 'acme' else 'globex' end from generate_series(1, 100000) n"
  )
  await sql.unsafe("insert into keeper_v1.prices values ('p', 1)")
  await sql.unsafe(
    "insert into keeper_v1.hourly (id, window_size, window_start, payments) values ('a', '1h', '2026-01-01T12:00:00Z', 2)"
  )
  await sql.unsafe("insert into keeper_v1.studios values ('acme', 'a', 2), ('acme', 'b', 1), ('globex', 'a', 3)")
  for (const tenant of ["acme", "globex", "all"]) {
    const { digest, id, text } = newApiKey()
    const of = tenant === "all" ? undefined : tenant
    await Effect.runPromise(
      createApiKey(sql, { id, digest, name: tenant, tenant: of, scopes: ["read"], validMs: undefined })
    )
    keys.set(tenant, text)
  }
  const access = { isRequired: true, keys: new ApiKeys(sql) }
  closed = await start(
    { application: server.system.application, views: server.views, access, limits: { eventLoopDelayMs: 0 } },
    server.log
  )
}, 60_000)
afterAll(async () => {
  await closed.stop()
  await server.stop()
})

describe("a page", () => {
  test("has the rows in the order of the primary key, with every value as its type is documented", async () => {
    const { body, text } = await get("/accounts")
    expect(body.rows[0]).toEqual({
      id: "a",
      tenant: "acme",
      cents: 100,
      rate: 0.1,
      open: true,
      at: "2026-01-01T12:00:00Z",
      tags: ["x"],
      order: null
    })
    expect(body.rows.map(({ id }) => id)).toEqual(["a", "b", "c'd"])
    expect(body.next).toBe(null)
    expect(text).toContain('"cents":9007199254740991')
  })

  test("loses no digit of a number and no microsecond of a time, also of a view without a key", async () => {
    const { text } = await get("/wide")
    for (const part of [
      '"large":9007199254740993,',
      '"exact":123456789012345678901234567890.123456789',
      '"at":"2026-01-01T12:00:00.123456Z"',
      '"doc":{"n":12345678901234567890}',
      '"odd":"NaN"'
    ])
      expect(text).toContain(part)
    expect((await get("/wide?large=9007199254740993")).body.rows).toHaveLength(1)
    expect((await get("/wide?large=9007199254740992")).body.rows).toHaveLength(0)
    expect((await get("/wide?exact=123456789012345678901234567890.123456789")).body.rows).toHaveLength(1)
    expect((await get("/wide?at.lt=2026-01-01T12:00:00.123456Z")).body.rows).toHaveLength(0)
  })

  test("is filtered by typed values", async () => {
    const filtered: ReadonlyArray<readonly [string, ReadonlyArray<string>]> = [
      ["id=a", ["a"]],
      ["id=c%27d", ["c'd"]],
      ["id.in=a,b", ["a", "b"]],
      [`id.in=${encodeURIComponent('["c\'d","b"]')}`, ["b", "c'd"]],
      ["id.prefix=c", ["c'd"]],
      ["cents.gt=100", ["b"]],
      ["cents.gte=-5&cents.lt=101", ["a", "c'd"]],
      ["cents.ne=100", ["b", "c'd"]],
      ["rate=0.1", ["a"]],
      ["rate.null=true", ["b"]],
      ["rate.ne=0.1", ["b", "c'd"]],
      ["open=false", ["b"]],
      ["at=2026-01-01T13:00:00%2B01:00", ["a"]],
      [`at=${Date.UTC(2026, 0, 1, 12, 0, 0, 500)}`, ["b"]],
      ["at.null=false", ["a", "b"]],
      [`tags=${encodeURIComponent('["x"]')}`, ["a"]],
      ["order.eq=first", ["b"]],
      ["order=at.desc", ["c'd", "b", "a"]],
      ["order=open.desc,cents", ["c'd", "a", "b"]]
    ]
    for (const [query, ids] of filtered) expect((await get(`/accounts?${query}`)).ids, query).toEqual(ids)
    expect((await get("/hourly")).body.rows).toEqual([
      { id: "a", window_size: "1h", window_start: "2026-01-01T12:00:00Z", payments: 2 }
    ])
  })

  test("that has not changed is 304 for a client that has its ETag, and has another one after a change", async () => {
    const first = await get("/prices")
    const etag = first.headers.get("etag")!
    expect((await get("/prices", { "if-none-match": etag })).status).toBe(304)
    expect((await get("/prices", { "if-none-match": `"x", W/${etag}` })).status).toBe(304)
    await server.sql`update keeper_v1.prices set cents = cents + 1`
    expect((await get("/prices", { "if-none-match": etag })).status).toBe(200)
  })

  test("names what is not there, and what was meant", async () => {
    expect(await refusal("/acounts")).toEqual([404, "unknown_view", "did you mean accounts?"])
    expect(await refusal("/accounts?cent=1")).toEqual([400, "unknown_column", "did you mean cents?"])
    expect(await refusal("/accounts?cents.gr=1")).toEqual([400, "unknown_operator", "did you mean gt?"])
    expect(await refusal("/accounts?limt=1")).toEqual([400, "unknown_column", "did you mean limit?"])
    expect(await refusal("/accounts?order=cent.desc")).toEqual([400, "unknown_column", "did you mean cents?"])
    expect(await refusal("/accounts?order=cents.desk")).toEqual([
      400,
      "invalid_parameter",
      "use cents.asc or cents.desc"
    ])
    expect(await refusal("/accounts?cents=abc")).toEqual([400, "invalid_parameter", "use a whole number"])
    expect((await get("/pg_authid")).status).toBe(404)
    expect((await get("/progress")).status).toBe(404)
  })
})

describe("pages", () => {
  const walk = async (query: string, between: (page: number) => Promise<unknown> = () => Promise.resolve()) => {
    const seen: Array<number> = []
    let after = ""
    for (let page = 0; ; page++) {
      const { body } = await get(`/ledger?limit=1000${query}${after}`)
      expect(body.error).toBe(undefined)
      seen.push(...body.rows.map(({ n }) => n as number))
      if (body.next === null) return seen
      after = `&after=${body.next}`
      await between(page)
    }
  }

  test("of 100,000 rows have every row that stays once, while others come and go", async () => {
    const { sql } = server
    const seen = await walk("", async (page) => {
      // rows behind and before the cursor appear and disappear, and none of the first 100,000 does but the multiples of 1,000
      await sql`insert into keeper_v1.ledger values (${200_000 + page}, 'globex'), (${300_000 + page}, 'acme')`
      await sql`delete from keeper_v1.ledger where n = ${(page + 1) * 1_000}`
    })
    expect(new Set(seen).size).toBe(seen.length)
    const stayed = Array.from({ length: 100_000 }, (_, i) => i + 1).filter((n) => n % 1_000 !== 0)
    const found = new Set(seen)
    expect(stayed.filter((n) => !found.has(n))).toEqual([])
  }, 30_000)

  test("are the same read backwards, with nulls and in descending order", () =>
    readBothWays(server.url, "accounts", ["order.desc", "order", "rate.desc,cents", "id"]))

  test("of rows that are equal in all columns have each of them", async () => {
    const seen: Array<unknown> = []
    let after = ""
    do {
      const { body } = await get(`/levels?limit=1${after}`)
      seen.push(...body.rows)
      after = body.next === null ? "" : `&after=${body.next}`
    } while (after !== "" && seen.length < 10)
    expect(seen).toHaveLength(3)
    await server.sql`insert into keeper_v1.accounts (id, tenant, cents, open, tags) select 'e' || n, 'same', 1, true, '[]' from generate_series(1, 7) n`
    const equal: Array<unknown> = []
    for (after = ""; ;) {
      const { body } = await get(`/levels?limit=3&tenant=same${after}`)
      equal.push(...body.rows)
      if (body.next === null) break
      after = `&after=${body.next}`
    }
    expect(equal).toHaveLength(7)
    await server.sql`delete from keeper_v1.accounts where tenant = 'same'`
  })

  test("go through nulls in both directions", async () => {
    for (const order of ["rate", "rate.desc", "at.desc,rate", "order.desc"]) {
      const all = (await get(`/accounts?order=${order}`)).ids!
      const paged: Array<unknown> = []
      let after = ""
      do {
        const { body, ids } = await get(`/accounts?limit=1&order=${order}${after}`)
        paged.push(...ids!)
        after = body.next === null ? "" : `&after=${body.next}`
      } while (after !== "")
      expect(paged, order).toEqual(all)
    }
  })

  test("refuse a cursor of another order, filter or view, and one that was changed", async () => {
    const { next } = (await get("/accounts?limit=1")).body
    const [digest, sent] = JSON.parse(Buffer.from(next!, "base64url").toString()) as ReadonlyArray<unknown>
    const forged = (...parts: ReadonlyArray<unknown>) => Buffer.from(JSON.stringify(parts)).toString("base64url")
    for (const query of [
      `?limit=1&order=id.desc&after=${next}`,
      `?limit=1&open=true&after=${next}`,
      "?after=x",
      `?after=${forged(digest, sent)}`,
      `?after=${forged(digest, sent, { a: 1 })}`,
      `?after=${forged(digest, -2, "a")}`,
      `?after=${forged(digest, sent, "a", "b")}`,
      `?after=${forged(digest, sent, "a\u0000")}`,
      `?after=${forged("__proto__", sent, "a")}`
    ])
      expect((await refusal(`/accounts${query}`)).slice(0, 2), query).toEqual([400, "invalid_cursor"])
    expect((await get(`/accounts?after=${forged(digest, 0, "'; drop table x; --")}`)).status).toBe(200)
  })
})

test("hostile input in every parameter is refused or is an ordinary value, and changes nothing", async () => {
  const counted = async () => (await server.sql`select count(*) as n from keeper_v1.accounts`)[0]!["n"] as number
  const before = await counted()
  const columns = ["id", "tenant", "cents", "rate", "open", "at", "tags", "order"]
  const names = [
    ...columns.flatMap((name) => ["", ".eq", ".ne", ".gt", ".in", ".prefix", ".null"].map((op) => `${name}${op}`)),
    "limit",
    "after",
    "order"
  ]
  for (const value of hostile) {
    const asked = names.map(async (name) => {
      const { status } = await get(`/accounts?${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
      return status === 200 || status === 400 ? undefined : `${name}=${value}: ${status}`
    })
    const asName = encodeURIComponent(value)
    const others = [`/accounts?${asName}=1`, `/accounts?id.${asName}=1`, `/accounts?order=${asName}.desc`].map(
      async (path) => {
        const { status } = await get(path)
        return status === 400 ? undefined : `${path}: ${status}`
      }
    )
    expect((await Promise.all([...asked, ...others])).filter((one) => one !== undefined)).toEqual([])
    expect((await get(`/${asName}`)).status).toBe(404)
  }
  for (const query of [
    "id=a&id=b",
    "id[]=a",
    "id[$gt]=a",
    "__proto__=1",
    "constructor=1",
    "id.constructor=1",
    "%00=1",
    "id=%ff&cents=%zz",
    "limit=0",
    "limit=1001",
    "limit=1&limit=2"
  ])
    expect((await get(`/accounts?${query}`)).status, query).toBe(400)
  expect((await get(`/accounts?id=${"a".repeat(1_000_000)}`).catch(() => ({ status: 431 }))).status).toBe(431)
  expect(await counted()).toBe(before)
})

describe("a credential of a tenant", () => {
  const as = (tenant: string, path: string) => get(path, { authorization: `Bearer ${keys.get(tenant)}` }, closed.url)

  test("sees the rows of its tenant alone, whatever the request asks for", async () => {
    expect((await as("acme", "/accounts")).ids).toEqual(["a", "b"])
    expect((await as("globex", "/accounts")).ids).toEqual(["c'd"])
    expect((await as("all", "/accounts")).ids).toEqual(["a", "b", "c'd"])
    for (const query of [
      "tenant=globex",
      "id=c%27d",
      "tenant.ne=acme",
      "tenant.in=acme,globex&id.prefix=c",
      "tenant.null=true"
    ])
      expect((await as("acme", `/accounts?${query}`)).ids, query).toEqual([])
    // a column of a window's key, which the window names
    expect((await as("acme", "/studios")).body.rows.map(({ payments }) => payments)).toEqual([2, 1])
    expect((await as("globex", "/studios?studio=acme")).ids).toEqual([])
    // a cursor of another tenant leads to no row of it
    const { next } = (await as("globex", "/ledger?limit=1")).body
    const rows = (await as("acme", `/ledger?limit=10&after=${next}`)).body.rows
    expect(new Set(rows.map(({ owner }) => owner))).toEqual(new Set(["acme"]))
  })

  test("is refused where rows do not say whose they are, and the list leaves these views out", async () => {
    expect((await as("acme", "/prices")).body.error?.code).toBe("not_by_tenant")
    expect((await as("acme", "/hourly")).status).toBe(403)
    expect((await as("all", "/prices")).status).toBe(200)
    const list = async (tenant: string) =>
      (JSON.parse((await as(tenant, "")).text) as { readonly views: ReadonlyArray<{ name: string }> }).views.map(
        ({ name }) => name
      )
    expect(await list("acme")).toEqual(["accounts", "ledger", "levels", "studios"])
    expect(await list("all")).toEqual(["accounts", "hourly", "ledger", "levels", "prices", "studios", "totals", "wide"])
  })
})

describe("a token", () => {
  const pay = async (id: string) => {
    const body = JSON.stringify({ type: "paid", id, tenant: "acme", cents: 7, at: Date.now() })
    const response = await fetch(`${server.url}/v1/events`, { method: "POST", body, headers: { "content-type": json } })
    const { token } = (await response.json()) as { readonly token: string }
    expect(response.headers.get("millrace-token")).toBe(token)
    return token
  }

  test("of what no projection has processed is answered 504 with how far it is, and by SQL with MR504", async () => {
    const token = await pay("early")
    const brief = await start(
      { application: server.system.application, views: server.views, limits: { eventLoopDelayMs: 0, waitMs: 50 } },
      server.log
    )
    const { body, status } = await get(`/accounts?waitFor=${token}`, {}, brief.url)
    expect([status, body.error?.code]).toEqual([504, "not_yet"])
    expect(body.error?.message).toMatch(
      /keeper has processed payments\.v1\/\d up to position 0, and the token asks for 1/
    )
    await brief.stop()
    const waited = server.sql`select millrace.wait_for(${token}, '20 ms')`
    await expect(waited).rejects.toMatchObject({ code: "MR504", message: expect.stringMatching(/not yet: keeper/) })
    const others = await server.sql`select millrace.wait_for(${token}, '20 ms', array['adder']) is null as waited`
    expect(others).toHaveLength(1)
  })

  test("gives a view what was written, also behind a chain of projections, over HTTP and in SQL", async () => {
    const running = Effect.runFork(
      Effect.all([runProjections(server.system), runRelay(server.system)], { concurrency: "unbounded", discard: true })
    )
    for (let i = 0; i < 20; i++) {
      const token = await pay(`own-${i}`)
      const view = ["accounts", "totals", "hourly"][i % 3]!
      expect((await get(`/${view}?id=own-${i}&waitFor=${token}`)).body.rows, `${view} ${i}`).toHaveLength(1)
      const next = await pay(`sql-${i}`)
      await server.sql`select millrace.wait_for(${next})`
      expect(await server.sql`select from totals where id = ${`sql-${i}`}`, `sql ${i}`).toHaveLength(1)
    }
    await Effect.runPromise(Fiber.interrupt(running))
  }, 30_000)

  test("that is none, or of a system with more partitions, is refused over HTTP and in SQL", async () => {
    const forged = (value: unknown) => `p1.${Buffer.from(JSON.stringify(value)).toString("base64url")}`
    const values = [{}, [1], [["t", "0", -1]], [["t", 0]], [[null, 0, 1]], [["payments.v1", 99, 1]]]
    for (const token of ["", "p1.", "p2.W10", "p1.!", "p1.AAAA", "' or true --", ...values.map(forged)]) {
      expect((await get(`/accounts?waitFor=${encodeURIComponent(token)}`)).status, token).toBe(400)
      await expect(server.sql`select millrace.wait_for(${token})`, token).rejects.toMatchObject({ code: "22023" })
    }
    expect((await get(`/accounts?limit=1&waitFor=${forged([["no such topic", 0, 5]])}`)).status).toBe(200)
  })

  test("cannot be waited for in a transaction that sees nothing new", async () => {
    const waited = transaction(server.sql, (tx) =>
      query("wait", async () => {
        await tx`set transaction isolation level repeatable read`
        await tx`select millrace.wait_for('p1.W10')`
      })
    )
    await expect(Effect.runPromise(waited)).rejects.toMatchObject({ code: "25001" })
  })
})

test("a role that may read one view reads it, and waits for tokens; another view is refused, and says why", async () => {
  const scope = Scope.makeUnsafe()
  const admin = await Effect.runPromise(Scope.provide(asSuperuser(server.database.url), scope))
  await admin.unsafe("create role narrow login password 'narrow'; grant select on accounts to narrow")
  const url = Object.assign(new URL(server.database.url), { username: "narrow", password: "narrow" }).href
  const views = viewReader(await Effect.runPromise(Scope.provide(openQueries({ url }, 5_000), scope)), server.sql)
  const narrow = await start({ application: server.system.application, views }, server.log)
  expect((await get("/accounts?id=a&waitFor=p1.W10", {}, narrow.url)).ids).toEqual(["a"])
  const { body, status } = await get("/prices", {}, narrow.url)
  expect([status, body.error?.code]).toEqual([500, "store_refused"])
  await narrow.stop()
  await Effect.runPromise(Scope.close(scope, Exit.void))
})

test("OpenAPI has a path for each view with its columns as parameters", async () => {
  const { paths } = (await (await fetch(`${server.url}/openapi.json`)).json()) as {
    readonly paths: Readonly<Record<string, { readonly get: { readonly parameters: ReadonlyArray<{ name: string }> } }>>
  }
  const names = paths["/v1/views/accounts"]!.get.parameters.map(({ name }) => name)
  expect(names).toEqual(
    expect.arrayContaining(["order", "limit", "after", "cents", "cents.gte", "id.prefix", "at.null"])
  )
  expect(paths["/v1/views/wide"]!.get.parameters.map(({ name }) => name)).toContain("exact.lt")
})

test("a query that takes too long ends and says so, and nothing can be written where views are read", async () => {
  const scope = Scope.makeUnsafe()
  const { url } = server.database
  const open = (queryMs: number) => Effect.runPromise(Scope.provide(openQueries({ url }, queryMs), scope))
  const [brief, usual] = [await open(1), await open(10_000)]
  const views = viewReader(brief, brief)
  const limits = { eventLoopDelayMs: 0 }
  const slow = await start({ application: server.system.application, views, limits }, server.log)
  const { body, status } = await get("/ledger?order=owner", {}, slow.url)
  expect([status, body.error?.code]).toEqual([503, "view_timeout"])
  await expect(usual`delete from keeper_v1.prices`).rejects.toThrow(/read-only transaction/)
  await slow.stop()
  await Effect.runPromise(Scope.close(scope, Exit.void))
})
