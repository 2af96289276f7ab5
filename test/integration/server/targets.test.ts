// Requests that no route gets to see, or whose target is no path, over bare sockets: typed problems, counted, and never an answer for another host.
import { connect, type Socket } from "node:net"
import { setTimeout } from "node:timers/promises"
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest"
import { json, recordsOf, start, transfer, type Server } from "../../support/http.ts"

let server: Server
beforeAll(async () => {
  server = await start({ limits: { headersMs: 400, requestMs: 400 } })
})
afterAll(() => server.stop())

interface Told {
  readonly status: number
  readonly head: string
  readonly body: string
  /** Whether the server has closed the connection. */
  readonly isClosed: boolean
}
const opened = (port = server.port): Socket => {
  const socket = connect(port, "127.0.0.1").on("error", () => {})
  onTestFinished(() => void socket.destroy())
  return socket
}
/** Sends bytes, and reads until the answer is complete, or the server closes the connection. */
const send = async (text: string, port?: number): Promise<Told> => {
  const socket = opened(port)
  let answer = ""
  socket.setEncoding("latin1").on("data", (part: string) => (answer += part))
  socket.write(text, "latin1")
  const until = performance.now() + 10_000
  for (let quiet = 0; !socket.closed && performance.now() < until && quiet < 15; await setTimeout(10))
    quiet = answer.includes("\r\n\r\n") ? quiet + 1 : 0
  const [head = "", ...rest] = answer.split("\r\n\r\n")
  return {
    status: Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]),
    head,
    body: rest.join("\r\n\r\n"),
    isClosed: socket.closed
  }
}
const codeOf = ({ body }: Told) =>
  (JSON.parse(body) as { readonly error: { readonly code: string; readonly try: string } }).error.code
const refusals = async (code: string): Promise<number> => {
  const text = await (await fetch(`${server.url}/metrics`)).text()
  return Number(
    new RegExp(`^millrace_http_requests_refused_total\\{code="${code}"\\} (\\d+)`, "m").exec(text)?.[1] ?? 0
  )
}

const host = "Host: localhost\r\n"
const upgrade =
  "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
const chunked = `POST /v1/events HTTP/1.1\r\n${host}Content-Type: ${json}\r\nTransfer-Encoding: chunked\r\n`

describe("what Node would answer by itself", () => {
  test.each([
    ["no Host", "GET /v1/topics HTTP/1.1\r\n\r\n", 400, "invalid_request"],
    ["no Host, on the way to a WebSocket", `GET /v1/alerts HTTP/1.1\r\n${upgrade}\r\n`, 400, "invalid_request"],
    ["no Host, but one in the target", "GET http://localhost/v1/topics HTTP/1.1\r\n\r\n", 400, "invalid_request"],
    ["two equal Hosts", `GET /v1/topics HTTP/1.1\r\n${host}${host}\r\n`, 400, "invalid_parameter"],
    ["two Hosts", `GET /v1/alerts HTTP/1.1\r\n${host}hOST: other\r\n${upgrade}\r\n`, 400, "invalid_parameter"],
    ["an unknown method", `FOO /v1/topics HTTP/1.1\r\n${host}\r\n`, 400, "invalid_request"],
    [
      "headers that are too large",
      `GET / HTTP/1.1\r\n${host}X: ${"x".repeat(20_000)}\r\n\r\n`,
      431,
      "headers_too_large"
    ],
    ["a target that is too large", `GET /${"x".repeat(20_000)} HTTP/1.1\r\n${host}\r\n`, 431, "headers_too_large"],
    ["a chunk that is none", `${chunked}\r\nzz\r\n`, 400, "invalid_request"],
    ["a length and chunks", `${chunked}Content-Length: 3\r\n\r\n0\r\n\r\n`, 400, "invalid_request"],
    ["an unknown expectation", `POST /v1/events HTTP/1.1\r\n${host}Expect: it\r\n\r\n`, 417, "invalid_request"],
    ["a tunnel", `CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n`, 405, "method_not_allowed"],
    [
      "a WebSocket without a key",
      `GET /v1/alerts HTTP/1.1\r\n${host}${upgrade.replace(/Sec-WebSocket-Key.*/, "X: y")}\r\n`,
      400,
      "invalid_request"
    ],
    ["HTTP/0.9", "GET /v1/topics\r\n\r\n", 400, "invalid_request"],
    ["HTTP/2.0", `GET /v1/topics HTTP/2.0\r\n${host}\r\n`, 400, "invalid_request"],
    ["the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_request"],
    ["a head that does not end", `GET /v1/topics HTTP/1.1\r\n${host}`, 408, "request_timeout"]
  ] as const)("%s", async (_, text, status, code) => {
    const before = await refusals(code)
    const told = await send(text)
    expect([told.status, codeOf(told)]).toEqual([status, code])
    expect(told.head).toMatch(/^content-type: application\/json; charset=utf-8$/im)
    expect(told.head).toMatch(/^connection: close$/im)
    expect(told.isClosed).toBe(true)
    expect(await refusals(code)).toBe(before + 1)
  })

  test("a path that cannot be decoded is counted, too", async () => {
    const before = await refusals("invalid_url")
    expect(codeOf(await send(`GET /v1/%ff HTTP/1.1\r\n${host}\r\n`))).toBe("invalid_url")
    expect(await refusals("invalid_url")).toBe(before + 1)
  })

  test("a tunnel that is refused has the methods of the server, and its client may reset the connection", async () => {
    const told = await send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
    expect(told.head).toMatch(/^allow: GET, HEAD, OPTIONS, POST$/im)
    for (let i = 0; i < 10; i++) {
      const socket = opened()
      await new Promise((sent) => socket.write("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", sent))
      socket.resetAndDestroy()
    }
    expect((await send(`GET /healthz HTTP/1.1\r\n${host}\r\n`)).status).toBe(200)
  })

  test("bytes that are no HTTP, in the middle of a stream, end it without an answer that would be read as a part of it", async () => {
    const socket = opened()
    let text = ""
    socket.setEncoding("latin1").on("data", (part: string) => (text += part))
    socket.write(`GET /v1/alerts HTTP/1.1\r\n${host}\r\n`)
    while (!text.includes("\nid: ")) await setTimeout(5)
    const before = await refusals("invalid_request")
    const closed = new Promise((resolve) => socket.once("close", resolve))
    socket.write("no HTTP\r\n\r\n")
    await closed
    expect(text.match(/HTTP\/1\.1/g)).toHaveLength(1)
    expect(await refusals("invalid_request")).toBe(before + 1)
  })

  test("HTTP/1.0 needs no Host", async () => {
    expect(await send("GET /healthz HTTP/1.0\r\n\r\n")).toMatchObject({ status: 200, isClosed: true })
  })

  test("headers behind thousands of others count", async () => {
    const many = "a:\r\n".repeat(2_500)
    const told = await send(`GET /v1/topics HTTP/1.1\r\n${many}Host: attacker.example\r\n\r\n`)
    // Node counts more bytes of each header than Deno does
    expect([421, 431]).toContain(told.status)
    const fewer = await send(`GET /v1/topics HTTP/1.1\r\n${"a:\r\n".repeat(1_100)}Host: attacker.example\r\n\r\n`)
    expect([fewer.status, codeOf(fewer)]).toEqual([421, "unknown_host"])
  })
})

describe("a target that is no path", () => {
  const asked = (target: string, headers = host, method = "GET") =>
    send(`${method} ${target} HTTP/1.1\r\n${headers}Connection: close\r\n\r\n`)

  test("of another host is refused, whatever the Host header says", async () => {
    for (const target of [
      "http://attacker.example/v1/topics",
      "HTTP://attacker.example:7070/v1/topics?x=1",
      "http://attacker.example",
      "http://127.0.0.1.attacker.example/v1/alerts",
      "http://192.168.0.7/healthz"
    ]) {
      const told = await asked(target)
      expect([told.status, codeOf(told)], target).toEqual([421, "unknown_host"])
      expect((await asked(target, host, "HEAD")).status, target).toBe(421)
    }
  })

  test("nothing of it is stored", async () => {
    const body = JSON.stringify(transfer())
    const rest = `HTTP/1.1\r\n${host}Content-Type: ${json}\r\nContent-Length: ${body.length}\r\n\r\n${body}`
    expect((await send(`POST http://attacker.example/v1/events ${rest}`)).status).toBe(421)
    expect(await recordsOf(server.log, "events.raw.v1")).toEqual([])
    expect((await send(`POST http://localhost/v1/events ${rest}`)).status).toBe(202)
    expect(await recordsOf(server.log, "events.raw.v1")).toHaveLength(1)
  })

  test("of this server is answered as its path, whatever the Host header says", async () => {
    expect((await asked("http://127.0.0.1/healthz")).status).toBe(200)
    const told = await asked("http://localhost:7070/v1/topics", "Host: attacker.example\r\n")
    expect([told.status, told.body.includes('"events.raw.v1"')]).toEqual([200, true])
    expect((await asked("http://localhost?utm_source=x")).head).toMatch(/^content-type: text\/html/im)
    const parameter = await asked("http://localhost/v1/topics?surely=1")
    expect([parameter.status, codeOf(parameter)]).toEqual([400, "invalid_parameter"])
    const method = await asked("http://localhost/v1/topics", host, "DELETE")
    expect([method.status, method.head.includes("GET, HEAD, OPTIONS")]).toEqual([405, true])
  })

  test("a page of the target's origin is the server's own, and one of the Host header's is not", async () => {
    const target = "http://localhost:7070/v1/topics"
    expect((await asked(target, `Host: 127.0.0.1\r\nOrigin: http://localhost:7070\r\n`)).status).toBe(200)
    expect((await asked(target, `Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n`)).status).toBe(403)
  })

  test("a WebSocket is opened by it, or refused", async () => {
    const of = (target: string) => send(`GET ${target} HTTP/1.1\r\n${host}${upgrade}\r\n`)
    expect((await of("http://localhost/v1/alerts")).status).toBe(101)
    expect((await of("http://attacker.example/v1/alerts")).status).toBe(421)
  })

  test.each(["https://localhost/v1/topics", "https://127.0.0.1"])(
    "%s is no resource of a server that is called by http",
    async (target) => {
      const told = await asked(target)
      expect([told.status, codeOf(told), told.isClosed]).toEqual([421, "unknown_host", true])
    }
  )

  test.each([
    ["GET", "*"],
    ["POST", "*"],
    ["GET", "ftp://localhost/v1/topics"],
    ["GET", "ws://localhost/v1/alerts"],
    ["GET", "http://user@localhost/v1/topics"],
    ["GET", "http:///v1/topics"],
    ["GET", "localhost:80"],
    ["GET", "v1/topics"]
  ])("%s %s is refused", async (method, target) => {
    const told = await asked(target, host, method)
    expect(told.status).toBe(400)
    expect(codeOf(told)).toMatch(/^invalid_(url|request)$/)
    expect(told.isClosed).toBe(true)
  })

  test.each([
    "//attacker.example/v1/topics",
    "//v1/topics",
    String.raw`/\attacker.example/v1/topics`,
    "/v1/../v1/topics"
  ])("%s is a path that no route has", async (target) => {
    const told = await asked(target)
    expect([told.status, codeOf(told)]).toEqual([404, "not_found"])
  })

  test("OPTIONS * has the methods of the server", async () => {
    const told = await asked("*", host, "OPTIONS")
    expect([told.status, /^allow: (.*)$/im.exec(told.head)?.[1]]).toEqual([204, "GET, HEAD, OPTIONS, POST"])
    expect((await asked("*", "Host: attacker.example\r\n", "OPTIONS")).status).toBe(421)
  })
})

test("on another address than a loopback one, too, a request needs one Host", async () => {
  const open = await start({ host: "0.0.0.0", access: { isRequired: true } })
  onTestFinished(() => open.stop())
  expect(codeOf(await send("GET /healthz HTTP/1.1\r\n\r\n", open.port))).toBe("invalid_request")
  expect(codeOf(await send(`GET /healthz HTTP/1.1\r\n${host}${host}\r\n`, open.port))).toBe("invalid_parameter")
  expect((await send("GET http://any.example/healthz HTTP/1.1\r\nHost: any.example\r\n\r\n", open.port)).status).toBe(
    200
  )
})
