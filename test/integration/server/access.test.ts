// A server that needs credentials, over real HTTP: every route, every scope, and two tenants that see and change nothing of each other.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { connect } from "../../../src/postgres/client/client.ts"
import { migrate } from "../../../src/postgres/client/migrate.ts"
import { createApiKey, findApiKey, listApiKeys, revokeApiKey } from "../../../src/postgres/store/api-keys.ts"
import { ApiKeys, newApiKey } from "../../../src/server/access/api-keys.ts"
import type { Access } from "../../../src/server/access/access.ts"
import type { Scope as KeyScope } from "../../../src/server/access/principal.ts"
import { principalOfClaims } from "../../../src/server/access/jwt.ts"
import type { System } from "../../../src/system/system.ts"
import { call, opened, startServer } from "../../support/aggregate-http.ts"
import { webSocket } from "../../support/websocket.ts"
import { json, noChanges, noViews, post, recordsOf, stream, transfer } from "../../support/http.ts"
import { server as postgres } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E>) => Effect.runPromise(effect)
let sql: Effect.Success<ReturnType<typeof connect>>
let keys: ApiKeys
let server: Awaited<ReturnType<typeof startServer>>
let now = 0
const bearer = (key: string) => ({ authorization: `Bearer ${key}` })
const keyOf = async (name: string, scopes: ReadonlyArray<KeyScope>, tenant?: string, validMs?: number) => {
  const { digest, id, text } = newApiKey()
  await run(createApiKey(sql, { id, digest, name, tenant, scopes, validMs }))
  return text
}
let acme: string
let globex: string
let loader: string
let operator: string

beforeAll(async () => {
  const url = await run(Scope.provide(postgres, scope))
  sql = await run(Scope.provide(connect(url, { max: 2 }), scope))
  await run(migrate(sql))
  keys = new ApiKeys(sql, () => now)
  acme = await keyOf("acme", ["ingest", "read"], "acme")
  globex = await keyOf("globex", ["ingest", "read"], "globex")
  loader = await keyOf("loader", ["ingest"])
  operator = await keyOf("operator", ["read", "operate"])
  const access: Access = { isRequired: true, keys }
  // the routes of operations are only asked whether they let a request in
  const system = { database: { sql } } as unknown as System
  server = await startServer(
    undefined,
    {},
    { access, status: Effect.succeed({ healthy: true }), system, views: noViews, changes: noChanges }
  )
}, 60_000)
afterAll(async () => {
  await server.stop()
  await run(Scope.close(scope, Exit.void))
})

/** The routes that the documentation has, and those that it does not have, with a method and the scope that each needs. */
const routes = async (): Promise<
  ReadonlyArray<readonly [method: string, path: string, scope: KeyScope | "any" | "open"]>
> => {
  const document = (await (await fetch(`${server.url}/openapi.json`, { headers: bearer(operator) })).json()) as {
    readonly paths: Readonly<Record<string, Readonly<Record<string, unknown>>>>
  }
  const needs: Readonly<Record<string, KeyScope | "any" | "open">> = {
    "/v1/credential": "any",
    "/healthz": "open",
    "/readyz": "open",
    "/metrics": "operate",
    "/status": "operate"
  }
  const described = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => {
      const scope =
        needs[path] ?? (path.startsWith("/v1/operations/") ? "operate" : method === "post" ? "ingest" : "read")
      return [
        method.toUpperCase(),
        path.replaceAll(/\{(\w+)\}/g, (_, name) => (name === "topic" ? "alerts.v1" : "x")),
        scope
      ] as const
    })
  )
  return [...described, ["GET", "/openapi.json", "read"], ["GET", "/docs/", "read"], ["GET", "/docs/json", "read"]]
}
const statusOf = async (method: string, path: string, headers: Readonly<Record<string, string>>) => {
  const init =
    method === "POST" ? { method, body: "{}", headers: { "content-type": json, ...headers } } : { method, headers }
  const response = await fetch(`${server.url}${path}`, { ...init, signal: AbortSignal.timeout(10_000) })
  const found = { status: response.status, challenge: response.headers.get("www-authenticate") }
  await response.body?.cancel()
  return found
}

describe("every route", () => {
  test("needs a credential with its scope, and answers 401 or 403 before it does anything", async () => {
    const all = await routes()
    expect(all.length).toBeGreaterThan(30)
    const reader = await keyOf("reader", ["read"])
    for (const [method, path, needed] of all) {
      const what = `${method} ${path}`
      if (needed === "open") {
        expect((await statusOf(method, path, {})).status, what).toBe(200)
        continue
      }
      expect(await statusOf(method, path, {}), what).toEqual({ status: 401, challenge: "Bearer" })
      expect((await statusOf(method, path, bearer("nonsense"))).status, what).toBe(401)
      // a credential in an address is for streams alone
      if (!/\/(stream|changes|alerts)$/.test(path))
        expect((await statusOf(method, `${path}?access_token=${operator}`, bearer(operator))).status, what).toBe(401)
      expect((await statusOf(method, path, bearer(newApiKey().text))).status, what).toBe(401)
      if (needed === "any") continue
      const [has, lacks] =
        needed === "ingest" ? [loader, reader] : needed === "read" ? [reader, loader] : [operator, reader]
      expect((await statusOf(method, path, bearer(lacks))).status, what).toBe(403)
      expect([401, 403], what).not.toContain((await statusOf(method, path, bearer(has))).status)
    }
  })

  test("a route that does not say which scope it needs is refused when the server is built", async () => {
    const { guard } = await import("../../../src/server/access/access.ts")
    const { default: Fastify } = await import("fastify")
    const app = Fastify()
    guard(app, { isRequired: true })
    expect(() => app.get("/v1/forgotten", () => "")).toThrow(/GET \/v1\/forgotten does not say which scope it needs/)
  })
})

describe("API keys", () => {
  test("are stored as digests, and listed without them, with when they were used", async () => {
    const key = await keyOf("used", ["read"])
    await statusOf("GET", "/v1/topics", bearer(key))
    const [, id] = key.split("_")
    const listed = async () => (await run(listApiKeys(sql, false))).find((one) => one.id === id)!
    while ((await listed()).last_used_at === null) await new Promise((done) => setTimeout(done, 10))
    expect(JSON.stringify(await listed())).not.toContain(key.split("_")[2])
    const rows = await sql`select k::text as text from millrace.api_key k`
    expect(rows.map(({ text }) => text as string).join()).not.toContain(key.split("_")[2])
  })

  test("a revoked key is refused within 5 seconds, and an expired one at once", async () => {
    const key = await keyOf("revoked", ["read"])
    expect((await statusOf("GET", "/v1/topics", bearer(key))).status).toBe(200)
    await run(revokeApiKey(sql, key.split("_")[1]!))
    now += 5_001
    expect((await statusOf("GET", "/v1/topics", bearer(key))).status).toBe(401)
    const short = await keyOf("short", ["read"], undefined, 1)
    await new Promise((done) => setTimeout(done, 5))
    expect((await statusOf("GET", "/v1/topics", bearer(short))).status).toBe(401)
  })

  test("streams end with the key that they were opened with, by server-sent events and WebSocket", async () => {
    const open = await startServer(
      undefined,
      {},
      { access: { isRequired: true, keys: new ApiKeys(sql, () => performance.now() * 20) }, limits: { recheckMs: 50 } }
    )
    const [revoked, expiring, other] = [
      await keyOf("streaming", ["read"]),
      await keyOf("expiring", ["read"], undefined, 1_000),
      await keyOf("staying", ["read"])
    ]
    const path = `${open.url}/v1/topics/alerts.v1/stream?access_token=`
    const socket = await webSocket(path + revoked)
    const stays = await stream(path + other)
    const expires = await stream(path + expiring)
    await run(revokeApiKey(sql, revoked.split("_")[1]!))
    const endOf = async ({ frame }: Awaited<ReturnType<typeof stream>>): Promise<unknown> => {
      for (let next = await frame(); next !== undefined; next = await frame())
        if (next.event === "end") return JSON.parse(next.data!)
      return undefined
    }
    expect(await endOf(expires)).toMatchObject({
      reason: "unauthenticated",
      message: "the API key does not exist, has expired, or was revoked",
      position: expect.any(String)
    })
    expect(await socket.closed()).toEqual({ code: 4006, reason: "unauthenticated" })
    // the third one ends with the server alone
    const end = endOf(stays)
    await open.stop()
    expect(await end).toMatchObject({ reason: "shutdown" })
  })

  test("are still accepted for a minute while the database does not answer, and an unknown one gets 503", async () => {
    let isAway = false
    const flaky = new Proxy(sql, {
      apply: (target, self, given) =>
        isAway ? Promise.reject(new Error("away")) : Reflect.apply(target as never, self, given)
    })
    let time = 0
    const checked = new ApiKeys(flaky, () => time)
    const known = await keyOf("known", ["read"])
    expect(await checked.principalOf(known)).toMatchObject({ name: "known" })
    isAway = true
    time = 59_000
    expect(await checked.principalOf(known)).toMatchObject({ name: "known" })
    await expect(checked.principalOf(acme)).rejects.toThrow()
    time = 61_000
    await expect(checked.principalOf(known)).rejects.toThrow()
  })

  test("the secret decides, not the id", async () => {
    const [, id] = acme.split("_")
    const other = `mr_${id}_${newApiKey().text.split("_").slice(2).join("_")}`
    expect(await keys.principalOf(other)).toBeUndefined()
    expect(await run(findApiKey(sql, id!))).toMatchObject({ name: "acme", tenant: "acme" })
  })

  test("a key of a tenant cannot operate the system, also not by SQL", async () => {
    await expect(keyOf("mighty", ["operate"], "acme")).rejects.toThrow(/check constraint/)
  })
})

describe("tenants", () => {
  test("events get the tenant of the credential, and one that names another tenant is rejected alone", async () => {
    const own = transfer({ tenant: "acme" })
    const foreign = transfer({ tenant: "globex" })
    const answer = await post(server, JSON.stringify([own, foreign]), { "content-type": json, ...bearer(acme) })
    expect(answer.status).toBe(207)
    expect(answer.body.results.map(({ error, status }) => [status, error?.code, error?.path])).toEqual([
      ["accepted", undefined, undefined],
      ["rejected", "wrong_tenant", "tenant"]
    ])
    const stored = await recordsOf(server.log, "events.raw.v1")
    expect(stored.filter(({ eventId }) => eventId === own.event_id).map(({ tenant }) => tenant)).toEqual(["acme"])
    expect(stored.some(({ eventId }) => eventId === foreign.event_id)).toBe(false)
    // a credential without a tenant sends events of any
    const any = await post(server, JSON.stringify(foreign), { "content-type": json, ...bearer(loader) })
    expect(any.status).toBe(202)
  })

  test("values of lookups, which are read for all tenants, are not a tenant's to send or to delete", async () => {
    const value = { entity_id: "e", risk_weight: 1, threshold: 1, segment: "a" }
    for (const body of [value, { key: "e", value: null }]) {
      const headers = { "content-type": json, ...bearer(acme) }
      const answer = await post(server, JSON.stringify(body), headers, "?topic=features.entity.v1")
      expect([answer.status, answer.body.results[0]?.error?.code]).toEqual([422, "shared_topic"])
    }
  })

  test("records and streams have those of the credential's tenant alone, whatever the request asks for", async () => {
    const [a, b] = [transfer({ tenant: "acme" }), transfer({ tenant: "globex" })]
    await post(server, JSON.stringify([a, b]), { "content-type": json, ...bearer(loader) })
    const page = async (key: string, query = "") => {
      const found: Array<string> = []
      for (let partition = 0; partition < 12; partition++) {
        const path = `/v1/topics/events.raw.v1/records?partition=${partition}&limit=1000${query}`
        const response = await fetch(`${server.url}${path}`, { headers: bearer(key) })
        if (response.status !== 200) return response.status
        const { records } = (await response.json()) as { readonly records: ReadonlyArray<{ tenant: string }> }
        found.push(...records.map(({ tenant }) => tenant))
      }
      return new Set(found)
    }
    expect(await page(acme)).toEqual(new Set(["acme"]))
    expect(await page(globex)).toEqual(new Set(["globex"]))
    expect(await page(acme, "&tenant=globex")).toBe(403)
    expect(await page(operator)).toEqual(new Set(["acme", "globex"]))
    const path = `/v1/topics/events.raw.v1/stream?from=earliest`
    const refused = await fetch(`${server.url}${path}&tenant=globex`, { headers: bearer(acme) })
    expect([refused.status, ((await refused.json()) as { error: { code: string } }).error.code]).toEqual([
      403,
      "wrong_tenant"
    ])
    const streamed = await stream(`${server.url}${path}&access_token=${acme}`)
    const seen: Array<string> = []
    while (!seen.includes(a.event_id)) {
      const [{ data } = {}] = await streamed.records(1)
      const event = JSON.parse(data!) as { readonly event_id: string; readonly tenant: string }
      expect(event.tenant).toBe("acme")
      seen.push(event.event_id)
    }
    streamed.close()
    // whole records and searches by key are the tenant's own, too
    const whole = await stream(`${server.url}${path}&envelope=record&access_token=${acme}`)
    let last = ""
    while (last !== a.event_id) {
      const [{ data } = {}] = await whole.records(1)
      const record = JSON.parse(data!) as { readonly event_id: string; readonly tenant: string }
      expect(record.tenant).toBe("acme")
      last = record.event_id
    }
    whole.close()
    const search = async (key: string) => {
      const query = `key=${b.entity_id}&order=desc&limit=1000`
      const found = await fetch(`${server.url}/v1/topics/events.raw.v1/records?${query}`, { headers: bearer(key) })
      const { records } = (await found.json()) as { readonly records: ReadonlyArray<{ readonly event_id: string }> }
      return records.some(({ event_id: id }) => id === b.event_id)
    }
    expect([await search(acme), await search(globex)]).toEqual([false, true])
  })

  test("a stream of an aggregate belongs to the tenant whose command created it: others neither read nor change it", async () => {
    const path = "alert-case/owned"
    const created = await call(server, `${path}/commands/open`, opened, { ...bearer(acme), "idempotency-key": "k" })
    expect(created.status).toBe(201)
    const again = await call(server, `${path}/commands/open`, opened, { ...bearer(acme), "idempotency-key": "k" })
    expect(again.body.repeated).toBe(true)
    const theirs = await call(server, `${path}/commands/acknowledge`, { at: 1, by: "eve" }, bearer(globex))
    expect([theirs.status, theirs.body.error.code]).toEqual([403, "wrong_tenant"])
    // neither does the key of a command that was answered
    const stolen = await call(server, `${path}/commands/open`, opened, { ...bearer(globex), "idempotency-key": "k" })
    expect(stolen.status).toBe(403)
    for (const of of [path, `${path}/events`, `${path}?version=1`]) {
      expect((await call(server, of, undefined, bearer(globex))).status, of).toBe(404)
      expect((await call(server, of, undefined, bearer(acme))).status, of).toBe(200)
      expect((await call(server, of, undefined, bearer(operator))).status, of).toBe(200)
    }
    const listedBy = async (credential: string, query: string) => {
      const { streams } = (await call(server, `alert-case?${query}`, undefined, bearer(credential))).body
      return streams.some(({ id }) => id === "owned")
    }
    for (const query of ["prefix=owned", "order=recent&limit=1000"]) {
      expect(await listedBy(globex, query), query).toBe(false)
      expect(await listedBy(acme, query), query).toBe(true)
      expect(await listedBy(operator, query), query).toBe(true)
    }
    const named = await call(
      server,
      `${path}/commands/acknowledge`,
      { at: 1, by: "ann" },
      { ...bearer(acme), "millrace-tenant": "globex" }
    )
    expect([named.status, named.body.error.code]).toEqual([403, "wrong_tenant"])
    const own = await call(server, `${path}/commands/acknowledge`, { at: 1, by: "ann" }, bearer(acme))
    expect([own.status, own.body.version]).toEqual([200, 2])
    const events = (await call(server, `${path}/events`, undefined, bearer(acme))).body.events as ReadonlyArray<{
      tenant: string
    }>
    expect(events.map(({ tenant }) => tenant)).toEqual(["acme", "acme"])
  })

  test("of two tenants that create the same stream at once, one owns it, and the other one is refused", async () => {
    for (let i = 0; i < 20; i++) {
      const path = `alert-case/race-${i}`
      const answers = await Promise.all(
        [acme, globex, acme, globex].map((key) =>
          call(server, `${path}/commands/escalate`, { at: i }, bearer(key)).then(() =>
            call(server, `${path}/commands/open`, opened, bearer(key))
          )
        )
      )
      const { body } = await call(server, `${path}/events`, undefined, bearer(operator))
      const owners = new Set((body.events as ReadonlyArray<{ tenant: string }>).map(({ tenant }) => tenant))
      expect(owners.size, JSON.stringify(answers.map(({ body, status }) => [status, body.title]))).toBe(1)
      expect(answers.filter(({ status }) => status === 201)).toHaveLength(1)
    }
  })
})

describe("GET /v1/credential", () => {
  const ask = async (credential: string | undefined, url = server.url) => {
    const headers = credential === undefined ? {} : bearer(credential)
    return (await fetch(`${url}/v1/credential`, { headers })).json()
  }

  test("says what a key allows, whatever its scopes, its tenant and when it expires", async () => {
    expect(await ask(operator)).toEqual({
      kind: "api_key",
      name: "operator",
      tenant: null,
      scopes: ["read", "operate"],
      expires_at: null
    })
    expect(await ask(acme)).toMatchObject({ tenant: "acme", scopes: ["ingest", "read"] })
    const before = Date.now()
    const found = (await ask(await keyOf("brief", ["ingest"], undefined, 60_000))) as { readonly expires_at: string }
    expect(found).toMatchObject({ name: "brief", scopes: ["ingest"] })
    expect(Math.abs(Date.parse(found.expires_at) - before - 60_000)).toBeLessThan(10_000)
  })

  test("says what a token allows: of a tenant's, operate counts for nothing; and what a request without a credential may do", async () => {
    const claims = { sub: "ada", tenant: "acme", scope: "millrace:operate millrace:read", exp: 1_900_000_000 }
    const names = { scopeClaim: "scope", scopePrefix: "millrace:", tenantClaim: "tenant" }
    const late = { ...claims, exp: 1e18 }
    const jwt = (token: string) => Promise.resolve(principalOfClaims(token === "l.b.c" ? late : claims, names))
    const open = await startServer(undefined, {}, { access: { isRequired: false, jwt } })
    // no date can say when
    expect(await ask("l.b.c", open.url)).toMatchObject({ name: "ada", expires_at: null })
    expect(await ask("a.b.c", open.url)).toEqual({
      kind: "token",
      name: "ada",
      tenant: "acme",
      scopes: ["read"],
      expires_at: "2030-03-17T17:46:40.000Z"
    })
    expect(await ask(undefined, open.url)).toEqual({
      kind: "none",
      name: null,
      tenant: null,
      scopes: ["ingest", "read", "operate"],
      expires_at: null
    })
    await open.stop()
  })
})

test("a server that asks for no credentials holds those that are presented to what they allow", async () => {
  const open = await startServer(undefined, {}, { access: { isRequired: false, keys } })
  const status = async (headers: Readonly<Record<string, string>>) =>
    (await post(open, JSON.stringify(transfer({ tenant: "globex" })), { "content-type": json, ...headers })).status
  expect(await status({})).toBe(202)
  expect(await status(bearer(acme))).toBe(422)
  expect(await status(bearer(operator))).toBe(403)
  expect(await status(bearer("nonsense"))).toBe(401)
  await open.stop()
})
