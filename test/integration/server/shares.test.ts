// What one tenant's credential takes of a server is not all of it: places of streams, of requests that read views, and of those that wait.
import { expect, onTestFinished, test } from "vitest"
import { positionToken } from "../../../src/log/position-token.ts"
import { noViews, start, stream } from "../../support/http.ts"

/** A server with a key of each tenant, whose text is the tenant's name, and with projections that process nothing. */
const startWithKeys = async (limits: object) => {
  const principalOf = async (text: string) => {
    const tenant = text.slice("mr_".length)
    return { name: tenant, tenant, scopes: new Set(["read" as const]) }
  }
  const behind = async () => [{ who: "alerts", topic: "events.raw.v1", partition: 0, position: 0, wanted: 1 }]
  const server = await start({
    access: { isRequired: true, keys: { principalOf } },
    views: { ...noViews, behind },
    limits
  })
  onTestFinished(() => server.stop())
  return server
}
const of = (tenant: string) => ({ authorization: `Bearer mr_${tenant}` })

test("requests of one tenant that wait leave places to those of others, and hold none of requests that only read", async () => {
  const { url } = await startWithKeys({ waitMs: 1_000, waiting: 8, readingViews: 2 })
  const token = positionToken([{ topic: "events.raw.v1", partition: 0, position: 1 }])
  const ask = async (tenant: string, query = "") =>
    (await fetch(`${url}/v1/views/alerts${query}`, { headers: of(tenant) })).status
  const waiting = Array.from({ length: 20 }, () => ask("acme", `?waitFor=${token}`))
  // those above the share are refused at once
  expect(await Promise.race(waiting)).toBe(429)
  // the database has no views yet: these were let through
  expect(await ask("globex")).toBe(404)
  expect(await ask("acme")).toBe(404)
  expect(await ask("globex", `?waitFor=${token}`)).toBe(504)
  const statuses = await Promise.all(waiting)
  expect([504, 429].map((status) => statuses.filter((one) => one === status).length)).toEqual([4, 16])
  // their places are free again
  expect(await ask("acme", `?waitFor=${token}`)).toBe(504)
})

test("one tenant opens half of all streams, and another one finds some", async () => {
  const { url } = await startWithKeys({ streams: 4 })
  const open = (tenant: string) => stream(`${url}/v1/alerts`, of(tenant))
  const found = [await open("acme"), await open("acme"), await open("acme"), await open("globex")]
  expect(found.map(({ status }) => status)).toEqual([200, 200, 429, 200])
  for (const { close } of found) close()
})
