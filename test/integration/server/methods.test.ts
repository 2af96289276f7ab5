// The methods and the query parameters of every route: what a route does not have is refused, by its name, before anything is done.
import { request } from "node:http"
import * as Effect from "effect/Effect"
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest"
import type { Principal } from "../../../src/server/access/principal.ts"
import { serveHealth } from "../../../src/server/server.ts"
import type { System } from "../../../src/system/system.ts"
import { startServer } from "../../support/aggregate-http.ts"
import { json, noChanges, noViews, post, recordsOf, transfer } from "../../support/http.ts"

let server: Awaited<ReturnType<typeof startServer>>
/** The methods of each path that the documentation has, without those for which every path is there. */
let described: ReadonlyMap<string, ReadonlySet<string>>
const acme: Principal = { name: "acme", tenant: "acme", scopes: new Set(["ingest", "read"]) }
beforeAll(async () => {
  server = await startServer(
    undefined,
    {},
    {
      // nothing here gets as far as the system
      system: { database: {} } as unknown as System,
      status: Effect.succeed({ healthy: true }),
      views: noViews,
      changes: noChanges,
      access: { isRequired: false, keys: { principalOf: async () => acme } }
    }
  )
  const { paths } = (await (await fetch(`${server.url}/openapi.json`)).json()) as {
    readonly paths: Readonly<Record<string, object>>
  }
  described = new Map(
    Object.entries(paths).map(([path, methods]) => [
      path,
      new Set(Object.keys(methods).flatMap((name) => (name === "get" ? ["GET", "HEAD"] : [name.toUpperCase()])))
    ])
  )
})
afterAll(() => server.stop())

interface Told {
  readonly status: number
  readonly allow: string | undefined
  readonly type: string | undefined
  readonly text: string
}
/** Asks with any method, also with one that `fetch` does not send. */
const ask = (method: string, path: string, headers: Record<string, string> = {}, body?: string, url = server.url) =>
  new Promise<Told>((resolve, reject) => {
    const asked = request(`${url}${path}`, { method, headers, agent: false }, (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (part: string) => (text += part))
      const { allow, "content-type": type } = response.headers
      response.on("end", () => resolve({ status: response.statusCode!, allow, type, text }))
    })
    asked.on("error", reject).end(body)
  })
/** The same, with a body if it is a POST. */
const send = (method: string, path: string, body: string) =>
  method === "POST" ? ask(method, path, { "content-type": json }, body) : ask(method, path)
const errorOf = ({ text }: Told) =>
  (JSON.parse(text) as { readonly error: { readonly code: string; readonly message: string; readonly try: string } })
    .error

/** A path of the documentation with values for its parameters. */
const filled = (path: string) => path.replaceAll(/\{(\w+)\}/g, (_, name) => (name === "topic" ? "alerts.v1" : "x"))
/** The methods of a path, of all descriptions that it fits, with OPTIONS. */
const allowedOf = (path: string) => {
  const fitting = [...described].filter(([pattern]) =>
    new RegExp(`^${pattern.replaceAll(/\{\w+\}/g, "[^/]+").replaceAll(".", String.raw`\.`)}$`).test(path)
  )
  return [...new Set([...fitting.flatMap(([, methods]) => Array.from(methods)), "OPTIONS"])].toSorted()
}

describe("methods", () => {
  test("every path answers OPTIONS with its methods, and refuses all others with 405 and Allow", async () => {
    expect(described.size).toBeGreaterThan(35)
    const methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "QUERY"]
    for (const path of [...described.keys()].map(filled)) {
      const allowed = allowedOf(path)
      const options = await ask("OPTIONS", path)
      expect([options.status, options.allow, options.text], path).toEqual([204, allowed.join(", "), ""])
      for (const method of methods.filter((one) => !allowed.includes(one))) {
        const answer = await ask(method, path)
        expect([answer.status, answer.allow], `${method} ${path}`).toEqual([405, allowed.join(", ")])
        if (method !== "HEAD")
          expect(errorOf(answer), `${method} ${path}`).toEqual({
            code: "method_not_allowed",
            message: `${path} has no method ${method}; it has ${allowed.join(", ")}`,
            try: `use one of these methods: ${allowed.join(", ")}`
          })
      }
    }
  })

  test("a body is not read, whatever it is, where the method or the path is wrong", async () => {
    const wrong = { "content-type": "application/x-nonsense", "content-encoding": "gzip" }
    expect((await ask("PUT", "/v1/events", wrong, "not gzip")).status).toBe(405)
    expect((await ask("POST", "/v1/topics", { "content-type": json }, "{")).status).toBe(405)
    expect((await ask("POST", "/v1/nothing", wrong, "{")).status).toBe(404)
  })

  test("pages and their files have methods, too, and a path that no route has is 404 with any method", async () => {
    for (const path of ["/", "/console/app.js", "/docs/", "/openapi.json", "/healthz"])
      expect(await ask("DELETE", path), path).toMatchObject({ status: 405, allow: "GET, HEAD, OPTIONS" })
    for (const method of ["GET", "POST", "OPTIONS", "DELETE"]) {
      const answer = await ask(method, "/v1/event")
      expect([answer.status, answer.allow], method).toEqual([404, undefined])
      expect(errorOf(answer).code).toBe("not_found")
    }
  })

  test("a slash at the end and escapes that are not needed make no difference", async () => {
    for (const path of ["/v1/events/", "/v1/%65vents", "/v1/events?x=1"])
      expect(await ask("GET", path), path).toMatchObject({ status: 405, allow: "OPTIONS, POST" })
    expect((await ask("GET", "/v1%2Fevents")).status).toBe(404)
  })

  test("problems of paths of aggregates have their form", async () => {
    const answer = await ask("DELETE", "/v1/aggregates/counter/c-1")
    expect([answer.status, answer.type]).toEqual([405, "application/problem+json; charset=utf-8"])
    expect(JSON.parse(answer.text)).toMatchObject({ title: "method_not_allowed", status: 405 })
  })

  test("with CORS, too, OPTIONS without an Origin has the methods of the path, and a preflight those of pages", async () => {
    const origin = "https://console.example"
    const own = await startServer(undefined, {}, { cors: [origin] })
    onTestFinished(() => own.stop())
    expect(await ask("OPTIONS", "/v1/events", {}, undefined, own.url)).toMatchObject({
      status: 204,
      allow: "OPTIONS, POST"
    })
    expect((await ask("OPTIONS", "/v1/nothing", {}, undefined, own.url)).status).toBe(404)
    expect((await ask("PUT", "/v1/events", { origin }, undefined, own.url)).status).toBe(405)
    const asked = { origin, "access-control-request-method": "POST" }
    const preflight = await ask("OPTIONS", "/v1/events", asked, undefined, own.url)
    expect([preflight.status, preflight.allow]).toEqual([204, undefined])
    // refused before the plugin for pages answers: in the form of all errors
    const other = { origin: "https://evil.example", "access-control-request-method": "POST" }
    const refused = await fetch(`${own.url}/v1/events`, { method: "OPTIONS", headers: other })
    expect(refused.status).toBe(403)
    expect(await refused.json()).toMatchObject({ error: { code: "cross_site" } })
  })

  test("while a process starts, routes that are still to come are 503, and those of health have their methods", async () => {
    const told = await Effect.runPromise(
      Effect.scoped(
        Effect.flatMap(serveHealth({ port: 0, isStarting: true }), ({ url }) =>
          Effect.promise(() =>
            Promise.all(
              (
                [
                  ["DELETE", "/v1/events"],
                  ["OPTIONS", "/v1/events"],
                  ["POST", "/healthz"]
                ] as const
              ).map(([method, path]) => ask(method, path, {}, undefined, url))
            )
          )
        )
      )
    )
    expect(told.map(({ status }) => status)).toEqual([503, 503, 405])
  })
})

describe("query parameters", () => {
  test("one that a route does not have is refused by its name, on every route", async () => {
    for (const [path, methods] of described) {
      // of views the database would have to say which columns they have
      if (path.startsWith("/v1/views/")) continue
      // probes ignore parameters
      if (path === "/healthz" || path === "/readyz") continue
      for (const method of methods) {
        if (method === "HEAD") continue
        const answer = await send(method, `${filled(path)}?surely_unknown=1`, "{}")
        expect([answer.status, errorOf(answer).code], `${method} ${path}`).toEqual([400, "invalid_parameter"])
        expect(errorOf(answer).message, `${method} ${path}`).toContain('no parameter "surely_unknown"')
      }
    }
    expect(await recordsOf(server.log, "events.raw.v1")).toEqual([])
  })

  test("the answer names those that there are, and a similar one", async () => {
    const command = "/v1/aggregates/counter/c-9/commands/count"
    const refusals = [
      ["POST", "/v1/events?topik=alerts.v1", "it has topic, results", "did you mean topic?"],
      ["POST", "/v1/events?dry_run=true", "it has topic, results", "use topic, results, or leave it out"],
      ["GET", "/v1/topics/alerts.v1/records?form=1", "it has partition, from, .*", "did you mean from?"],
      ["GET", "/v1/aggregates/counter/c-9?verson=1", "it has version, at, waitFor", "did you mean version?"],
      ["GET", "/v1/topics?limit=1", "it has none", "leave it out"],
      ["POST", `${command}?dryRun=true`, "it has none", "leave it out"],
      ["POST", "/v1/operations/timers/retry?dryrun=true", "it has dryRun", "did you mean dryRun?"],
      ["GET", "/v1/operations/status?tenant=a", "it has none", "leave it out: the tenant is that of the credential"]
    ] as const
    for (const [method, path, has, advice] of refusals) {
      const answer = await send(method, path, '{"n":1}')
      expect([answer.status, errorOf(answer).try], path).toEqual([400, advice])
      expect(errorOf(answer).message, path).toMatch(new RegExp(`^this route has no parameter ".*"; ${has}$`))
    }
    expect((await ask("GET", "/v1/aggregates/counter/c-9")).status).toBe(404)
  })

  test("pages and their files ignore them, as links and caches add them", async () => {
    for (const path of ["/?utm_source=mail", "/console/app.js?v=3", "/docs/?x=1", "/docs/json?x=1", "/healthz?x=1"])
      expect((await ask("GET", path)).status, path).toBe(200)
  })
})

describe("the tenant of events", () => {
  const asAcme = { authorization: "Bearer mr_acme" }
  test("is in no parameter, and in no header of the request: naming one there stores nothing", async () => {
    const body = JSON.stringify(transfer())
    const inQuery = await ask("POST", "/v1/events?tenant=acme", { "content-type": json }, body)
    expect([inQuery.status, errorOf(inQuery).try]).toEqual([
      400,
      "leave it out: the tenant is that of the credential, or what the event has in the field that its topic declares"
    ])
    const inHeader = await ask("POST", "/v1/events", { "content-type": json, "millrace-tenant": "acme" }, body)
    expect([inHeader.status, errorOf(inHeader).code]).toEqual([400, "invalid_parameter"])
    const other = { "content-type": json, "millrace-tenant": "globex", ...asAcme }
    const wrong = await ask("POST", "/v1/events", other, body)
    expect([wrong.status, errorOf(wrong).code]).toEqual([403, "wrong_tenant"])
    expect(await recordsOf(server.log, "events.raw.v1")).toEqual([])
    const { status } = await post(server, body, { "content-type": json, "millrace-tenant": "acme", ...asAcme })
    expect(status).toBe(202)
    expect(await recordsOf(server.log, "events.raw.v1")).toMatchObject([{ tenant: "acme" }])
  })

  test("a credential of a tenant that names another one in the header is refused where it reads, too", async () => {
    for (const path of ["/v1/topics", "/v1/topics/alerts.v1/records", "/v1/views", "/v1/aggregates/counter/c-1"]) {
      const of = (tenant: string) => ask("GET", path, { "millrace-tenant": tenant, ...asAcme })
      expect((await of("globex")).status, path).toBe(403)
      expect((await of("acme")).status, path).not.toBe(403)
    }
  })
})
