// HTTP streams by WebSocket at the paths of server-sent events: messages, filters, resuming, credentials, and clients that break the protocol.
import { connect, type Socket } from "node:net"
import { setTimeout } from "node:timers/promises"
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest"
import { alert, publish, start, stream, type Server } from "../../support/http.ts"
import { webSocket } from "../../support/websocket.ts"

let server: Server
const path = "/v1/topics/alerts.v1/stream"
const limits = { heartbeatMs: 150, slowClientMs: 400, streams: 20, recentBytes: 12 * 4_000 }
beforeAll(async () => {
  server = await start({ limits, access: { isRequired: false, jwt: () => Promise.reject(new Error("none")) } })
})
afterAll(() => server.stop())

const ids = (messages: ReadonlyArray<{ readonly data?: unknown }>) =>
  messages.map(({ data }) => (data as { readonly alert_id: string }).alert_id)
const metric = async (name: string): Promise<number> => {
  const text = await (await fetch(`${server.url}/metrics`)).text()
  return Number(
    text
      .split("\n")
      .find((line) => line.startsWith(`${name} `))
      ?.slice(name.length + 1) ?? 0
  )
}
const ended = (reason: string) => metric(`millrace_streams_ended_total{reason="${reason}"}`)
const noneOpen = () => expect.poll(() => metric("millrace_streams_open"), { timeout: 20_000 }).toBe(0)
/** A connection that has asked for a WebSocket. */
const raw = async (query = "", head = ""): Promise<Socket> => {
  const socket = connect({ port: server.port, host: "127.0.0.1", allowHalfOpen: true }).on("error", () => {})
  onTestFinished(() => void socket.destroy())
  socket.write(
    `GET ${path}${query} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n` +
      `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${head}\r\n`
  )
  return socket
}
const opened = async (query = ""): Promise<Socket> => {
  const socket = await raw(query)
  const answer = await new Promise<Buffer>((resolve) => socket.once("data", resolve))
  expect(answer.toString()).toMatch(/^HTTP\/1\.1 101 /)
  return socket
}

describe("a WebSocket", () => {
  test("gets its position first, and then a message for each record, with an id to resume from", async () => {
    const client = await webSocket(server.url + path)
    const first = await client.next()
    expect(first).toEqual({ id: expect.stringMatching(/^\d+(\.\d+){11}$/), event: "position" })
    await publish(server, [alert("w-1", "W1"), alert("w-2", "W1")])
    const [one, two] = await client.records(2)
    expect(one).toEqual({
      id: expect.any(String),
      event: "record",
      data: { alert_id: "w-1", entity_id: "W1", score: 1000 }
    })
    client.close()
    const resumed = await webSocket(`${server.url}${path}?from=${one!.id}`)
    expect(await resumed.records(1)).toEqual([two])
    resumed.close()
    // before any record as well
    const early = await webSocket(`${server.url}${path}?from=${first!.id}`)
    expect(await early.records(2)).toEqual([one, two])
    early.close()
  })

  test("has the same filters, and refuses what it does not know before it is opened", async () => {
    const client = await webSocket(`${server.url}${path}?value.score.gte=1000&key=K2`)
    await publish(server, [alert("k-1", "K1"), alert("k-2", "K2")])
    expect(ids(await client.records(1))).toEqual(["k-2"])
    client.close()
    const { refused } = await webSocket(`${server.url}${path}?value.scor=1`)
    expect([refused?.status, refused?.body.error]).toEqual([
      400,
      { code: "unknown_column", message: 'the values of alerts.v1 have no field "scor"', try: "did you mean score?" }
    ])
    expect((await webSocket(`${server.url}/v1/topics/nothing/stream`)).refused?.status).toBe(404)
    await noneOpen()
  })

  test("needs a credential where others do, has its tenant's records alone, and does not repeat it as the protocol", async () => {
    const own = await start({
      access: {
        isRequired: true,
        jwt: (token) => Promise.resolve({ name: token, tenant: "acme", scopes: new Set(["read"]) })
      }
    })
    onTestFinished(() => own.stop())
    expect((await webSocket(own.url + path)).refused?.status).toBe(401)
    const client = await webSocket(own.url + path, {}, ["millrace", "millrace.bearer.secret"])
    expect((await webSocket(`${own.url}${path}?tenant=globex&access_token=secret`)).refused?.status).toBe(403)
    await publish(own, [alert("g", "P", "globex"), alert("a", "P", "acme")])
    expect(ids(await client.records(1))).toEqual(["a"])
    expect(client.socket.protocol).toBe("millrace")
    expect(client.socket.extensions).toBe("")
    client.close()
  })

  test("of a page of another origin is refused, and one of the server's own page is opened", async () => {
    const foreign = await webSocket(server.url + path, { headers: { origin: "https://evil.example" } })
    expect([foreign.refused?.status, foreign.refused?.body.error.code]).toEqual([403, "cross_site"])
    const own = await webSocket(server.url + path, { headers: { origin: server.url } })
    expect(own.refused).toBeUndefined()
    own.close()
  })

  test("a request that asks for another upgrade, or one on another route, is answered as one without it", async () => {
    for (const [target, upgrade, status] of [
      ["POST /v1/events", "h2c", 202],
      ["GET /v1/topics", "websocket", 200],
      ["GET /healthz", "h2c", 200]
    ] as const) {
      const socket = connect(server.port, "127.0.0.1").on("error", () => {})
      const body = `{"type":"transfer","entity_id":"u","amount":1,"occurred_at":${Date.now()},"event_id":"u-1","tenant":"acme"}`
      const length = target.startsWith("POST")
        ? `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`
        : ""
      socket.write(
        `${target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: ${upgrade}\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n` +
          `${length}\r\n${target.startsWith("POST") ? body : ""}`
      )
      const answer = await new Promise<Buffer>((resolve) => socket.once("data", resolve))
      expect([target, answer.toString().slice(9, 12)]).toEqual([target, String(status)])
      socket.destroy()
    }
  })

  test("a closing server ends it with the reason, the position and the code 1001", async () => {
    const own = await start({ limits: { closeMs: 600_000 } })
    const client = await webSocket(own.url + path)
    const position = (await client.next())!.id
    const still = connect(own.port, "127.0.0.1").on("error", () => {})
    await own.stop()
    expect(await client.next()).toMatchObject({ event: "end", data: { reason: "shutdown", position } })
    expect(await client.closed()).toEqual({ code: 1001, reason: "shutdown" })
    still.destroy()
  })
})

describe("clients that do not behave", () => {
  test("one that answers no ping is disconnected", async () => {
    const before = await ended("no_pong")
    const client = await webSocket(server.url + path, { autoPong: false })
    expect((await client.closed()).code).toBe(1006)
    expect(await ended("no_pong")).toBe(before + 1)
    await noneOpen()
  })

  test("one that answers pings stays, also if it sends something now and then", async () => {
    const client = await webSocket(server.url + path)
    for (let i = 0; i < 6; i++) {
      client.socket.send("ping")
      await setTimeout(120)
    }
    await publish(server, [alert("alive", "A")])
    expect(ids(await client.records(1))).toEqual(["alive"])
    client.close()
  })

  test("one that does not read is ended as slow_client, and the memory of the server does not grow", async () => {
    const before = await ended("slow_client")
    const socket = await opened()
    socket.pause()
    const memory = process.memoryUsage().rss
    for (let i = 0; i < 10; i++)
      await publish(
        server,
        Array.from({ length: 50 }, (_, j) => ({
          ...alert(`s-${i}-${j}`, `S${j}`),
          value: JSON.stringify({ x: "x".repeat(50_000) })
        }))
      )
    await expect.poll(() => ended("slow_client"), { timeout: 20_000 }).toBe(before + 1)
    expect(process.memoryUsage().rss - memory).toBeLessThan(150_000_000)
    await noneOpen()
    // by force, though it reads nothing
    await setTimeout(1_100)
    const closed = new Promise((done) => socket.once("end", done).once("close", done))
    socket.resume()
    await closed
  })

  test("one that sends more than a little is closed with the reason: large messages, and a flood of pings", async () => {
    const large = await webSocket(server.url + path)
    large.socket.send("x".repeat(2_000))
    expect((await large.closed()).code).toBe(1009)
    const flood = await webSocket(server.url + path)
    for (let i = 0; i < 300; i++) flood.socket.send("hello")
    expect(await flood.closed()).toEqual({ code: 4002, reason: "too_many_messages" })
    const pings = await webSocket(server.url + path)
    for (let i = 0; i < 300; i++) pings.socket.ping()
    await pings.closed()
    await noneOpen()
  })

  test.each([
    ["frames without a mask", Buffer.from([0x81, 0x02, 0x61, 0x62])],
    ["an opcode that does not exist", Buffer.from([0x83, 0x80, 0, 0, 0, 0])],
    ["reserved bits", Buffer.from([0xf1, 0x80, 0, 0, 0, 0])],
    ["text that is no UTF-8", Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff])],
    ["a length of 2^63", Buffer.from([0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
    ["a fragmented ping", Buffer.from([0x09, 0x80, 0, 0, 0, 0])],
    ["HTTP", Buffer.from("GET / HTTP/1.1\r\n\r\n")],
    ["noise", Buffer.from(Array.from({ length: 4_000 }, (_, i) => (i * 7919) % 256))]
  ])("one that sends %s is closed, and keeps no slot", async (_, bytes) => {
    const socket = await opened()
    const closed = new Promise((done) => socket.once("close", done).once("end", () => socket.end()))
    socket.resume()
    socket.write(bytes)
    await closed
    await noneOpen()
  })

  test("a path that cannot be decoded is answered, and the connection closed", async () => {
    const socket = connect(server.port, "127.0.0.1")
    const head = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    socket.write(`GET /v1/topics/%zz/stream HTTP/1.1\r\n${head}\r\n`)
    const answer = await new Promise<Buffer>((resolve) => socket.once("data", resolve))
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 400 /)
    socket.destroy()
  })

  test("one that closes its half keeps no slot, before and after it is open", async () => {
    const half = await raw()
    half.end()
    half.resume()
    const open = await opened()
    open.end()
    open.resume()
    const event = connect({ port: server.port, host: "127.0.0.1", allowHalfOpen: true })
    event.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
    event.end()
    event.resume()
    await setTimeout(50)
    await noneOpen()
    event.destroy()
  })

  test.each([
    ["no key", "Sec-WebSocket-Key: \r\n"],
    ["another version", "Sec-WebSocket-Version: 7\r\n"],
    ["a protocol that is none", "Sec-WebSocket-Protocol: a b c\r\n"],
    ["a page of another site", "Origin: https://evil.example\r\n"],
    ["a credential of another form", "Authorization: Basic eA==\r\n"]
  ])("a request with %s is refused, and keeps no slot and no connection", async (_, head) => {
    for (let i = 0; i < 25; i++) {
      const socket = await raw("", head)
      let text = ""
      socket.on("data", (chunk: Buffer) => (text += chunk.toString()))
      await new Promise((done) => socket.once("end", done))
      expect(text).toMatch(/^HTTP\/1\.1 4\d\d /)
      socket.destroy()
    }
    await noneOpen()
  })

  test.each(["8", "7", "13, 8", "x", ""])(
    "version %j of the protocol gets 426 with the version that is supported, on the same form as all problems",
    async (version) => {
      const socket = connect({ port: server.port, host: "127.0.0.1" })
      onTestFinished(() => void socket.destroy())
      socket.write(
        `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
          `${version === "" ? "" : `Sec-WebSocket-Version: ${version}\r\n`}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`
      )
      let text = ""
      socket.on("data", (chunk: Buffer) => (text += chunk.toString()))
      await new Promise((done) => socket.once("end", done))
      const [head = "", body = ""] = text.split("\r\n\r\n")
      expect(head).toMatch(/^HTTP\/1\.1 426 Upgrade Required\r\n/)
      expect(head.toLowerCase()).toContain("\r\nsec-websocket-version: 13\r\n")
      expect(head.toLowerCase()).toContain("\r\nupgrade: websocket\r\n")
      const { error } = JSON.parse(body) as { readonly error: { readonly code: string; readonly message: string } }
      const sent = version === "" ? "is missing" : `is ${JSON.stringify(version)}`
      expect(error).toMatchObject({
        code: "invalid_request",
        message: `the header Sec-WebSocket-Version ${sent}; only version 13 is supported`
      })
      await noneOpen()
    }
  )

  test("requests that are refused, and resets at any point of the opening, keep no slot", async () => {
    const requests = ["", "?from=earliest", "?from=nowhere", "?value.nothing=1", "?from=2026-01-31"]
    let sent = 0
    for (let round = 0; round < 15; round++) {
      await Promise.all(
        Array.from({ length: 20 }, async (_, i) => {
          const socket = await raw(requests[sent++ % requests.length])
          // before the request is complete, while it is answered, and after
          await setTimeout(i / 4)
          if (i % 3 === 0) socket.end()
          else socket.resetAndDestroy()
        })
      )
    }
    await noneOpen()
    await expect
      .poll(
        async () => {
          const open = await Promise.all(Array.from({ length: 20 }, () => webSocket(server.url + path)))
          for (const { close } of open) close()
          return open.every(({ refused }) => refused === undefined)
        },
        { timeout: 20_000, interval: 200 }
      )
      .toBe(true)
  })

  test("both kinds share the limit of open streams", async () => {
    const own = await start({ limits: { ...limits, streams: 2 } })
    onTestFinished(() => own.stop())
    const [events, socket] = [await stream(own.url + path), await webSocket(own.url + path)]
    expect((await webSocket(own.url + path)).refused?.status).toBe(429)
    expect((await fetch(own.url + path)).status).toBe(429)
    events.close()
    socket.close()
  })
})
