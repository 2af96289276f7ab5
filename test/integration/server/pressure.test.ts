// A server whose log, database or disk is behind: writes are refused with when to come again, reads are answered.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, describe, expect, test } from "vitest"
import { pressureParts } from "../../../src/cli/pressure.ts"
import { make } from "../../../src/memory/log.ts"
import { connect } from "../../../src/postgres/client/client.ts"
import { watchPressure, type DatabasePressure } from "../../../src/system/pressure.ts"
import { startServer } from "../../support/aggregate-http.ts"
import { declare, json, noChanges, noViews, post, start, transfer } from "../../support/http.ts"
import { server as postgres } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
afterAll(() => run(Scope.close(scope, Exit.void)))

test("under pressure events and commands get 503 with Retry-After, unread; reads and health are answered", async () => {
  let found: DatabasePressure = { behindMs: 0, freeBytes: undefined }
  const server = await startServer(undefined, {}, { pressure: pressureParts(() => found, true) })
  const refused = async (path: string, body: string) => {
    const response = await fetch(server.url + path, { method: "POST", headers: { "content-type": json }, body })
    const { error } = (await response.json()) as {
      readonly error?: { readonly code: string; readonly message: string }
    }
    return [response.status, response.headers.get("retry-after"), error?.code, error?.message]
  }
  const both = async () => [
    await refused("/v1/events", "not even JSON"),
    await refused("/v1/aggregates/counter/a/commands/count", "not even JSON")
  ]
  expect((await both()).map(([status]) => status)).toEqual([400, 400])
  found = { behindMs: 7_900, freeBytes: undefined }
  const behind = [503, "5", "overloaded", "the database is behind: a query has waited for 7 s"]
  expect(await both()).toEqual([behind, behind])
  found = { behindMs: 0, freeBytes: 20 << 20 }
  const full = [503, "5", "disk_full", "the disk of the database has 20 MiB left"]
  expect(await both()).toEqual([full, full])
  const reads = ["/healthz", "/v1/topics", "/v1/aggregates/counter/a", "/metrics"]
  const statuses = await Promise.all(reads.map(async (path) => (await fetch(server.url + path)).status))
  expect(statuses).toEqual([200, 200, 404, 200])
  await server.stop()
})
test("changes of a view that the database does not open in time are answered with 503, and keep no slot", async () => {
  const changes = { ...noChanges, open: () => new Promise<never>(() => {}) }
  const views = { ...noViews, columns: async () => new Map([["alerts", [{ name: "alert_id", type: "text" }]]]) }
  const server = await start({ views, changes, limits: { openMs: 50, streams: 1 } })
  for (let i = 0; i < 3; i++) {
    const response = await fetch(`${server.url}/v1/views/alerts/changes`)
    const { error } = (await response.json()) as { readonly error?: { readonly code: string } }
    expect([response.status, response.headers.get("retry-after"), error?.code]).toEqual([503, "1", "store_unavailable"])
  }
  await server.stop()
})
test("with the log elsewhere, events are taken while the database is behind", () => {
  const { commands, events } = pressureParts(() => ({ behindMs: 60_000, freeBytes: 0 }), false)
  expect([commands()?.code, events()]).toEqual(["disk_full", undefined])
})

test("a gateway whose log hangs answers the requests that wait, refuses further ones at once, and goes on by itself", async () => {
  const { log } = make()
  await declare(log)
  let isHung = true
  const hung = Effect.suspend(() =>
    isHung
      ? Effect.delay(
          Effect.suspend(() => hungAgain),
          20
        )
      : Effect.void
  )
  const hungAgain: Effect.Effect<void> = hung
  const slow = { ...log, append: (...of: Parameters<typeof log.append>) => Effect.andThen(hung, log.append(...of)) }
  const server = await start({ limits: { stalledMs: 300, appendMs: 600 } }, slow)
  const waited = post(server, JSON.stringify(transfer()))
  await expect
    .poll(async () => {
      const { body, headers, status } = await post(server, "not even JSON")
      return [status, body.error?.code, headers.get("retry-after")]
    })
    .toEqual([503, "log_unavailable", "5"])
  const { body, headers, status } = await waited
  expect([status, body.results[0]?.error?.code, headers.get("retry-after")]).toEqual([503, "log_unavailable", "1"])
  expect((await fetch(`${server.url}/v1/topics`)).status).toBe(200)
  isHung = false
  await expect.poll(async () => (await post(server, JSON.stringify(transfer()))).status).toBe(202)
  await server.stop()
})

describe("watching a database", () => {
  test("a saturated pool counts as behind until it answers again", async () => {
    const url = await run(postgres)
    const sql = await run(connect(url, { max: 1 }))
    const other = await run(connect(url, { max: 1 }))
    const read = await run(watchPressure({ sql, embeddedDir: undefined }, { everyMs: 10 }))
    await expect.poll(() => read().behindMs).toBe(0)
    await other`select pg_advisory_lock(42)`
    const waiting = sql`select pg_advisory_lock(42)`.execute()
    await expect.poll(() => read().behindMs).toBeGreaterThan(200)
    await other`select pg_advisory_unlock(42)`
    await waiting
    await expect.poll(() => read().behindMs).toBe(0)
    expect(read().freeBytes).toBeUndefined()
  })
  test("a disk with too few bytes is seen, and one with enough is not", async () => {
    const sql = await run(connect(await run(postgres), { max: 1 }))
    const of = async (leastBytes: number) =>
      (await run(watchPressure({ sql, embeddedDir: "." }, { everyMs: 10, leastBytes })))().freeBytes
    expect(await of(Number.MAX_SAFE_INTEGER)).toBeGreaterThan(0)
    expect(await of(0)).toBeUndefined()
  })
})
