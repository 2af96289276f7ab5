// What a server behind a proxy believes, which pages of other origins may call it, and how many requests one client may send.
import { request } from "node:http"
import { afterAll, describe, expect, test } from "vitest"
import { anyone, type Principal } from "../../../src/server/access/principal.ts"
import { json, post, start, type Server, transfer } from "../../support/http.ts"

const servers: Array<Server> = []
const serve = async (options: Parameters<typeof start>[0]) => {
  const server = await start(options)
  servers.push(server)
  return server
}
afterAll(async () => {
  for (const server of servers) await server.stop()
})
/** The status of a GET with any headers, and from any address of this machine. */
const asked = (
  server: Server,
  headers: Readonly<Record<string, string>>,
  path = "/v1/topics",
  localAddress = "127.0.0.1"
) =>
  new Promise<number>((resolve, reject) => {
    const options = { host: "127.0.0.1", port: server.port, path, headers, localAddress, agent: false }
    const sent = request(options, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    sent.once("error", reject)
    sent.end()
  })
const hourly = (max: number) => ({ max, windowMs: 3_600_000 })

describe("headers of proxies", () => {
  test("host and protocol count from a trusted address alone", async () => {
    const server = await serve({ hosts: ["api.example"], trustedProxies: ["127.0.0.2/32"] })
    const forwarded = { "x-forwarded-host": "api.example", "x-forwarded-proto": "https" }
    const page = { ...forwarded, origin: "https://api.example" }
    const [proxy, other] = ["127.0.0.2", "127.0.0.3"]
    expect(await asked(server, page, "/v1/topics", proxy)).toBe(200)
    // this machine's own Host, and a page of another origin
    expect(await asked(server, page, "/v1/topics", other)).toBe(403)
    expect(await asked(server, { ...page, "x-forwarded-proto": "http" }, "/v1/topics", proxy)).toBe(403)
    const rebound = { "x-forwarded-host": "attacker.example" }
    expect(await asked(server, rebound, "/v1/topics", proxy)).toBe(421)
    const hidden = { host: "attacker.example", "x-forwarded-host": "api.example" }
    expect(await asked(server, hidden, "/v1/topics", other)).toBe(421)
  })
  test("the client's address, by which requests without a credential are limited, counts from a trusted address alone", async () => {
    const server = await serve({ trustedProxies: ["127.0.0.2"], rateLimits: { read: hourly(1) } })
    const of = (address: string, from: string) => asked(server, { "x-forwarded-for": address }, "/v1/topics", from)
    expect(await of("192.0.2.1", "127.0.0.2")).toBe(200)
    expect(await of("192.0.2.2", "127.0.0.2")).toBe(200)
    expect(await of("192.0.2.2", "127.0.0.2")).toBe(429)
    // the nearest address that is not trusted counts, not what the client wrote before it
    expect(await of("192.0.2.9, 192.0.2.2", "127.0.0.2")).toBe(429)
    expect(await of("192.0.2.10", "127.0.0.3")).toBe(200)
    expect(await of("192.0.2.11", "127.0.0.3")).toBe(429)
  })
})

describe("pages of other origins", () => {
  const origin = "https://console.example"
  const preflight = (server: Server, from: string) =>
    fetch(`${server.url}/v1/events`, {
      method: "OPTIONS",
      headers: {
        origin: from,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type"
      }
    })
  const access = { isRequired: true }
  test("a preflight needs no credential, and allows the listed origin without the browser's own credentials", async () => {
    const server = await serve({ cors: [origin], access })
    const { headers, status } = await preflight(server, origin)
    expect([status, headers.get("access-control-allow-origin")]).toEqual([204, origin])
    expect(headers.get("access-control-allow-headers")).toContain("authorization")
    expect(headers.get("access-control-allow-credentials")).toBeNull()
    expect(headers.get("vary")).toContain("Origin")
    const other = await preflight(server, "https://attacker.example")
    expect([other.status, other.headers.get("access-control-allow-origin")]).toEqual([403, null])
  })
  test("beyond this machine, where pages of others are not refused, they cannot read what is answered", async () => {
    const server = await serve({ cors: [origin], host: "0.0.0.0" })
    const from = async (page: string) =>
      (await fetch(`${server.url}/v1/topics`, { headers: { origin: page } })).headers.get("access-control-allow-origin")
    expect([await from(origin), await from("https://attacker.example")]).toEqual([origin, null])
  })
  test("the page can read why it is refused", async () => {
    const server = await serve({ cors: [origin], access })
    const { headers, status } = await fetch(`${server.url}/v1/topics`, { headers: { origin } })
    expect([status, headers.get("access-control-allow-origin")]).toEqual([401, origin])
    expect(headers.get("access-control-expose-headers")).toContain("retry-after")
  })
  test("without listed origins nothing is allowed", async () => {
    const server = await serve({})
    expect((await preflight(server, origin)).headers.get("access-control-allow-origin")).toBeNull()
  })
})

describe("rate limits", () => {
  test("each scope has its own; answers have the limit, refusals when to come again, and health has none", async () => {
    const server = await serve({ rateLimits: { ingest: hourly(2), read: hourly(1) } })
    const first = await post(server, JSON.stringify(transfer()))
    expect(["limit", "remaining"].map((name) => first.headers.get(`ratelimit-${name}`))).toEqual(["2", "1"])
    // many events in one request count as one
    const many = Array.from({ length: 50 }, () => transfer())
    expect((await post(server, JSON.stringify(many))).status).toBe(202)
    const { body, headers, status } = await post(server, JSON.stringify(transfer()))
    expect([status, body.error?.code, headers.get("ratelimit-remaining")]).toEqual([429, "rate_limited", "0"])
    expect(Number(headers.get("retry-after"))).toBeGreaterThan(3_000)
    expect(body.error?.message).toBe("more than 2 requests of this client in 3600 seconds")
    expect([await asked(server, {}), await asked(server, {})]).toEqual([200, 429])
    // operate has no limit here
    const free = await Promise.all(
      ["/healthz", "/readyz", "/metrics", "/healthz"].map((path) => asked(server, {}, path))
    )
    expect(free).toEqual([200, 200, 200, 200])
  })
  test("principals are limited by their name and tenant, whatever address they come from", async () => {
    const named = (name: string, tenant?: string): Principal => ({ ...anyone, name, tenant })
    const principals: Readonly<Record<string, Principal>> = { a: named("a"), b: named("b"), other: named("a", "acme") }
    const access = { isRequired: true, jwt: async (token: string) => principals[token]! }
    const server = await serve({ access, rateLimits: { read: hourly(1) } })
    const of = (token: string, from?: string) => asked(server, { authorization: `Bearer ${token}` }, "/v1/topics", from)
    expect(await of("a")).toBe(200)
    expect(await of("a", "127.0.0.9")).toBe(429)
    expect([await of("b"), await of("other"), await of("b")]).toEqual([200, 200, 429])
  })
  test("a body is not read of a request above the limit", async () => {
    const server = await serve({ rateLimits: { ingest: hourly(1) } })
    await post(server, JSON.stringify(transfer()))
    const status = await new Promise<number>((resolve, reject) => {
      const headers = { "content-type": json, "content-length": "1000000" }
      const sent = request(`${server.url}/v1/events`, { method: "POST", headers, agent: false }, (response) => {
        resolve(response.statusCode ?? 0)
        sent.destroy()
      })
      sent.once("error", reject)
      sent.write("[")
    })
    expect(status).toBe(429)
  })
})
