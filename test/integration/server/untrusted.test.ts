// Clients that are not to be trusted, over real sockets: they disconnect at any moment, stall, send bombs, or are pages of other sites.
import { connect, type Socket } from "node:net"
import { setTimeout } from "node:timers/promises"
import { gzipSync } from "node:zlib"
import * as Effect from "effect/Effect"
import { describe, expect, onTestFinished, test } from "vitest"
import { make } from "../../../src/memory/log.ts"
import {
  declare,
  get,
  json,
  lines,
  many,
  ndjson,
  post,
  recordsOf,
  start,
  stream,
  type Server
} from "../../support/http.ts"

type Options = Parameters<typeof start>[0]
const serve = async (...given: Parameters<typeof start>): Promise<Server> => {
  const server = await start(...given)
  onTestFinished(() => server.stop())
  return server
}
const metric = async (server: Server, name: string): Promise<number> => {
  const text = await (await fetch(`${server.url}/metrics`)).text()
  const line = text.split("\n").find((one) => one.startsWith(`${name} `))
  expect(line).toBeDefined()
  return Number(line!.slice(name.length + 1))
}
const opened = (server: Server): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect(server.port, "127.0.0.1", () => resolve(socket)).once("error", reject)
    onTestFinished(() => void socket.destroy())
  })
/** Everything that the server sends until it closes the connection. */
const answerOf = (socket: Socket): Promise<string> =>
  new Promise((resolve) => {
    let text = ""
    socket.on("data", (chunk: Buffer) => (text += chunk.toString()))
    socket.on("error", () => resolve(text)).on("close", () => resolve(text))
  })
const within = async (ms: number, holds: () => Promise<boolean>): Promise<void> => {
  for (const until = performance.now() + ms; performance.now() < until; await setTimeout(20)) if (await holds()) return
  expect(await holds()).toBe(true)
}

describe("streams whose clients disconnect while they are opened", () => {
  /** Opens streams whose clients reset the connection after `ms`, and expects that none keeps its slot. */
  const resets = async (options: Options, path: string, ms: number, headers = "") => {
    const log = make().log
    await declare(log)
    // as a log that is not in this process
    const slow: typeof log = { ...log, bounds: (topic) => Effect.delay(log.bounds(topic), "20 millis") }
    const server = await serve(options, slow)
    for (let round = 0; round < 6; round++) {
      await Promise.all(
        Array.from({ length: 20 }, async () => {
          const socket = await opened(server)
          socket.on("error", () => {})
          await new Promise((sent) => socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`, sent))
          await setTimeout(ms)
          socket.resetAndDestroy()
        })
      )
      await setTimeout(40)
    }
    const alerts = await stream(`${server.url}/v1/alerts`)
    expect(alerts.status).toBe(200)
    alerts.close()
    await within(2_000, async () => (await metric(server, "millrace_streams_open")) === 0)
  }
  test.each([0, 5, 19, 21, 30])("reset after %i ms", async (ms) => {
    await resets({ limits: { streams: 20 } }, "/v1/alerts", ms)
  })
  test("on the route of any topic, from the first record", async () => {
    await resets({ limits: { streams: 20 } }, "/v1/topics/alerts.v1/stream?from=earliest", 10)
  })
  test("with an id to resume from", async () => {
    const id = Array.from({ length: 12 }, () => 0).join(".")
    await resets({ limits: { streams: 20 } }, "/v1/alerts", 10, `Last-Event-ID: ${id}\r\n`)
  })
  test("a log that does not answer keeps no slot of a client that has gone, and is asked once", async () => {
    const log = make().log
    await declare(log)
    let asked = 0
    const stuck: typeof log = {
      ...log,
      bounds: () =>
        Effect.andThen(
          Effect.sync(() => asked++),
          Effect.never
        )
    }
    const server = await serve({ limits: { streams: 5, closeMs: 100 } }, stuck)
    for (let i = 0; i < 10; i++) {
      const socket = await opened(server)
      socket.on("error", () => {})
      socket.write("GET /v1/alerts HTTP/1.1\r\nHost: localhost\r\n\r\n")
      await setTimeout(20)
      socket.resetAndDestroy()
      await setTimeout(10)
    }
    expect(asked).toBe(1)
    // a tenth client would be refused if the slots were still taken
    const socket = await opened(server)
    const answer = answerOf(socket)
    socket.write("GET /v1/alerts HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await setTimeout(50)
    socket.destroy()
    expect(await answer).toBe("")
  })
  test.each(["/v1/alerts", "/v1/topics/alerts.v1/stream", "/v1/topics/alerts.v1/stream?from=earliest"])(
    "HEAD %s is answered with the headers, and opens no stream",
    async (path) => {
      const server = await serve({ limits: { streams: 1 } })
      for (let i = 0; i < 3; i++) {
        const response = await fetch(server.url + path, { method: "HEAD", signal: AbortSignal.timeout(2_000) })
        expect([response.status, response.headers.get("content-type")]).toEqual([
          200,
          "text/event-stream; charset=utf-8"
        ])
      }
      expect((await fetch(`${server.url}/v1/alerts?from=nowhere`, { method: "HEAD" })).status).toBe(400)
      expect((await fetch(`${server.url}/v1/topics/nothing/stream`, { method: "HEAD" })).status).toBe(404)
    }
  )
})

describe("bodies that stall", () => {
  const head = (length: number) =>
    `POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${ndjson}\r\nContent-Length: ${length}\r\n\r\n`
  test("a body of which nothing arrives is refused with 408, and gives its memory back", async () => {
    const server = await serve({ limits: { bodyIdleMs: 150, heldBytes: 3_000 } })
    const sockets = await Promise.all(Array.from({ length: 3 }, () => opened(server)))
    const answers = sockets.map(answerOf)
    for (const socket of sockets) socket.write(`${head(2_000)}${"x".repeat(900)}`)
    for (const answer of answers) {
      expect(await answer).toMatch(/^HTTP\/1.1 408 .*"code":"request_timeout"/s)
    }
    const { status } = await post(server, lines(many(2)), { "content-type": ndjson })
    expect(status).toBe(202)
    expect(await metric(server, 'millrace_http_requests_refused_total{code="request_timeout"}')).toBeGreaterThanOrEqual(
      3
    )
  })
  test("a slow body keeps its memory while nobody needs it, and gives it to a request that does", async () => {
    const server = await serve({ limits: { bodyIdleMs: 5_000, bodySlowMs: 100, heldBytes: 2_000 } })
    const [patient, greedy] = [await opened(server), await opened(server)]
    const slow = answerOf(greedy)
    greedy.write(`${head(4_000)}${"x".repeat(1_900)}`)
    await setTimeout(150)
    greedy.write("x")
    const line = `${JSON.stringify(many(1)[0])}\n`
    const { status } = await post(server, line, { "content-type": ndjson })
    expect(status).toBe(202)
    expect(await slow).toMatch(/^HTTP\/1.1 408 .*its memory was needed for other requests/s)
    // slow, but in nobody's way
    const other = answerOf(patient)
    patient.write(head(line.length).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
    for (let at = 0; at < line.length; at += 40) {
      patient.write(line.slice(at, at + 40))
      await setTimeout(60)
    }
    expect(await other).toMatch(/^HTTP\/1.1 202 /)
  })
  test("headers that never end are answered with 408", async () => {
    const server = await serve({ limits: { headersMs: 200, requestMs: 400 } })
    const socket = await opened(server)
    const answer = answerOf(socket)
    socket.write("GET /v1/topics HTTP/1.1\r\nHost: localhost\r\n")
    expect(await answer).toMatch(/^HTTP\/1.1 408 /)
  }, 10_000)
  test("a body that dribbles is ended with the time for a whole request", async () => {
    const server = await serve({ limits: { headersMs: 200, requestMs: 400 } })
    const socket = await opened(server)
    const answer = answerOf(socket)
    socket.on("error", () => {})
    socket.write(head(100_000))
    const timer = setInterval(() => socket.write("x"), 50)
    expect(await answer).toMatch(/^(HTTP\/1.1 408 .*)?$/s)
    clearInterval(timer)
  }, 10_000)
  test("memory is free again after clients that disconnect within a gzip body", async () => {
    const server = await serve({ limits: { heldBytes: 100_000, bodyBytes: 200_000 } })
    const body = gzipSync(lines(many(400)))
    for (let i = 0; i < 20; i++) {
      const socket = await opened(server)
      socket.on("error", () => {})
      socket.write(head(body.length).replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n"))
      socket.write(i % 2 === 0 ? body : body.subarray(0, 100))
      await setTimeout(i % 5)
      socket.resetAndDestroy()
    }
    await setTimeout(200)
    // with a byte of another body in memory this one would be refused
    const { status } = await post(server, lines(many(600)), { "content-type": ndjson })
    expect(status).toBe(202)
  })
})

describe("gzip", () => {
  const gzip = { "content-type": ndjson, "content-encoding": "gzip" }
  test("a small body needs its own size, not the limit: many at once are accepted", async () => {
    const server = await serve({ limits: { heldBytes: 100_000, bodyBytes: 90_000 } })
    const answers = await Promise.all(
      Array.from({ length: 30 }, () => post(server, Uint8Array.from(gzipSync(lines(many(3)))), gzip))
    )
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([202]))
    expect(await recordsOf(server.log, "events.raw.v1")).toHaveLength(90)
  })
  test("a bomb uses no more than the limit, also in several members, and leaves nothing behind", async () => {
    const server = await serve({ limits: { heldBytes: 3_000_000, bodyBytes: 1_000_000 } })
    const bomb = gzipSync(Buffer.alloc(20_000_000, 32))
    for (const body of [
      bomb,
      Buffer.concat([gzipSync(Buffer.alloc(600_000, 32)), gzipSync(Buffer.alloc(600_000, 32))])
    ]) {
      const { body: refused, status } = await post(server, Uint8Array.from(body), gzip)
      expect([status, refused.error?.code]).toEqual([413, "body_too_large"])
    }
    expect((await post(server, Uint8Array.from(gzipSync(lines(many(1_000)))), gzip)).status).toBe(202)
  })
})

describe("pages of other sites", () => {
  const asked = async (server: Server, request: string): Promise<number> => {
    const socket = await opened(server)
    const answer = answerOf(socket)
    socket.write(`${request}\r\nConnection: close\r\n\r\n`)
    return Number(/^HTTP\/1.1 (\d+)/.exec(await answer)?.[1])
  }
  test("no route answers to a name that another site resolved to this machine", async () => {
    const server = await serve()
    for (const route of [
      "GET /v1/alerts",
      "GET /v1/topics",
      "GET /docs",
      "GET /metrics",
      "GET /healthz",
      "GET /nothing"
    ])
      expect(await asked(server, `${route} HTTP/1.1\r\nHost: attacker.example:${server.port}`)).toBe(421)
    expect(await asked(server, `GET /v1/topics HTTP/1.1\r\nHost: localhost:${server.port}`)).toBe(200)
  })
  test("a page of another origin cannot send events, and no stream is opened for it", async () => {
    const server = await serve({ limits: { streams: 1 } })
    const origin = "https://attacker.example"
    const { body, status } = await post(server, lines(many(1)), { "content-type": json, origin })
    expect([status, body.error?.code]).toEqual([403, "cross_site"])
    expect(await recordsOf(server.log, "events.raw.v1")).toEqual([])
    for (let i = 0; i < 3; i++) expect((await get(`${server.url}/v1/alerts`, { origin })).status).toBe(403)
  })
  test("names and origins that the server is told are accepted", async () => {
    const server = await serve({ hosts: ["millrace.example"], cors: ["https://console.example"] })
    expect(await asked(server, "GET /v1/topics HTTP/1.1\r\nHost: millrace.example")).toBe(200)
    const response = await fetch(`${server.url}/v1/topics`, { headers: { origin: "https://console.example" } })
    expect([response.status, response.headers.get("access-control-allow-origin")]).toEqual([
      200,
      "https://console.example"
    ])
  })
})

test("each event of a bulk request has a span of its own in the request's trace; a single event has the request's", async () => {
  const server = await serve()
  const tracesOf = async () => (await recordsOf(server.log, "events.raw.v1")).map(({ traceparent }) => traceparent!)
  const single = await post(server, JSON.stringify(many(1)[0]))
  expect(await tracesOf()).toEqual([single.headers.get("traceparent")])
  for (const [body, type] of [
    [lines(many(50)), ndjson],
    [JSON.stringify(many(50)), json]
  ] as const) {
    const before = new Set(await tracesOf())
    const answer = await post(server, body, { "content-type": type })
    const added = (await tracesOf()).filter((trace) => !before.has(trace))
    expect(added).toHaveLength(50)
    expect(new Set(added.map((trace) => trace.slice(3, 35)))).toEqual(new Set([answer.body.trace_id]))
    for (const trace of added) expect(trace).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/)
    expect(added).not.toContain(answer.headers.get("traceparent"))
  }
})
