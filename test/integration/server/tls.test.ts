// A server with TLS over real sockets: keep-alive, streams and WebSockets, certificates of clients, and files that change while it runs.
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { Agent, request } from "node:https"
import { connect as connectPlain } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { certificateReader, certificateRules } from "../../../src/server/access/certificates.ts"
import { httpClient, isRefusedByTls } from "../../../src/cli/http-client.ts"
import type { TlsOptions } from "../../../src/server/http/tls.ts"
import { certificate } from "../../support/certificates.ts"
import { json, start, type Server, transfer } from "../../support/http.ts"
import { webSocket } from "../../support/websocket.ts"

// Deno trusts a certificate alone only if that signed itself
const isDeno = "deno" in process.versions
const folder = mkdtempSync(join(tmpdir(), "millrace-tls-"))
const authority = certificate("Test Authority")
const others = certificate("Another Authority")
const sans = ["DNS:localhost", "IP:127.0.0.1"]
const put = (name: string, text: string) => {
  const path = join(folder, name)
  // as tools that renew certificates do: a file is there as a whole or not at all
  writeFileSync(`${path}.new`, text)
  renameSync(`${path}.new`, path)
  return path
}
const filesOf = (name: string, one = certificate("server", { by: authority, sans })) => ({
  cert: put(`${name}.pem`, one.cert),
  key: put(`${name}.key`, one.key)
})
const ca = put("ca.pem", authority.cert)
const servers: Array<Server> = []
const serve = async (tls: TlsOptions, options: Parameters<typeof start>[0] = {}) => {
  const server = await start({ tls, ...options })
  servers.push(server)
  return server
}
afterAll(async () => {
  for (const server of servers) await server.stop()
  rmSync(folder, { recursive: true, force: true })
})

/** A GET or a POST as a client of the authority; the body of the answer is text. */
const ask = (
  url: string,
  options: { readonly agent?: Agent; readonly cert?: string; readonly key?: string } = {},
  body?: string
) =>
  new Promise<{ readonly status: number; readonly text: string; readonly port: number | undefined }>(
    (resolve, reject) => {
      const method = body === undefined ? "GET" : "POST"
      const headers = body === undefined ? {} : { "content-type": json }
      const sent = request(url, { ca: authority.cert, method, headers, agent: false, ...options }, (response) => {
        const port = response.socket.localPort
        let text = ""
        response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
        response.on("end", () => resolve({ status: response.statusCode ?? 0, text, port }))
      })
      sent.once("error", reject)
      sent.end(body)
    }
  )
const handshake = (server: Server, options: ConnectionOptions = {}) =>
  new Promise<TLSSocket>((resolve, reject) => {
    const socket = connect({ port: server.port, host: "127.0.0.1", ca: authority.cert, ...options })
    socket.once("secureConnect", () => resolve(socket)).once("error", reject)
  })
const servedBy = async (server: Server) => {
  const socket = await handshake(server, { ca: [authority.cert, others.cert] })
  const { subject } = socket.getPeerCertificate()
  socket.destroy()
  return subject.CN
}

describe("a server with a certificate", () => {
  let server: Server
  beforeAll(async () => {
    server = await serve(filesOf("plain"))
  })
  test("its URL is https, requests share a connection, and events are stored", async () => {
    expect(server.url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/)
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: authority.cert })
    const posted = await ask(`${server.url}/v1/events`, { agent }, JSON.stringify(transfer()))
    const health = await ask(`${server.url}/healthz`, { agent })
    agent.destroy()
    expect([posted.status, health.status, posted.port === health.port]).toEqual([202, 200, true])
  })
  test("SSE and WebSocket streams work over TLS", async () => {
    const first = await new Promise<string>((resolve, reject) => {
      const sent = request(
        `${server.url}/v1/topics/alerts.v1/stream`,
        { ca: authority.cert, agent: false },
        (response) => {
          let text = ""
          response.on("data", (chunk: Buffer) => {
            text += chunk.toString()
            if (!/^id:.*\n\n/m.test(text)) return
            resolve(text)
            sent.destroy()
          })
        }
      )
      sent.once("error", reject)
      sent.end()
    })
    expect(first).toMatch(/^id:/m)
    const client = await webSocket(`${server.url}/v1/topics/alerts.v1/stream`, { ca: authority.cert })
    expect(client.refused).toBeUndefined()
    expect(await client.next()).toMatchObject({ event: "position" })
    client.socket.terminate()
  })
  test("TLS 1.2 is accepted, older versions are not", async () => {
    const socket = await handshake(server, { maxVersion: "TLSv1.2" })
    expect(socket.getProtocol()).toBe("TLSv1.2")
    socket.destroy()
    await expect(handshake(server, { minVersion: "TLSv1", maxVersion: "TLSv1.1" })).rejects.toThrow()
  })
  test("a client of plain HTTP is disconnected, and others are served on", async () => {
    const closed = new Promise<string>((resolve) => {
      const socket = connectPlain(server.port, "127.0.0.1", () =>
        socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
      )
      let text = ""
      socket.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")))
      socket.on("error", () => {}).once("close", () => resolve(text))
    })
    expect(await closed).not.toContain("HTTP/1.1")
    expect((await ask(`${server.url}/healthz`)).status).toBe(200)
  })
  test("a connection whose handshake does not end in time is closed", async () => {
    const own = await serve(filesOf("silent"), { limits: { headersMs: 200 } })
    const socket = connectPlain(own.port, "127.0.0.1")
    socket.resume()
    await new Promise((resolve) => socket.on("error", () => {}).once("close", resolve))
  })
  test("the client of commands needs the authority", async () => {
    const signal = AbortSignal.timeout(10_000)
    const url = new URL("/healthz", server.url)
    const options = { method: "GET", headers: {}, signal } as const
    const { status, text } = await httpClient({ ca: authority.cert })(url, options)
    expect([status, JSON.parse(text)]).toMatchObject([200, { status: "ok" }])
    const error = await httpClient({})(url, options).catch((cause: unknown) => cause as Error)
    expect(error instanceof Error && isRefusedByTls(error)).toBe(true)
  })
  test.skipIf(isDeno)(
    "the process that has the certificate recognizes its own server, whatever name the certificate has",
    async () => {
      const one = certificate("elsewhere", { by: authority, sans: ["DNS:api.example"] })
      const own = await serve(filesOf("elsewhere", one))
      const asking = httpClient({ ca: one.cert, isOwnServer: true })
      const options = { method: "GET", headers: {}, signal: AbortSignal.timeout(10_000) } as const
      expect((await asking(new URL("/healthz", own.url), options)).status).toBe(200)
    }
  )
  test("a server that stops ends the connections with TLS that wait for nothing, and answers running requests", async () => {
    const own = await start({ tls: filesOf("stopped") })
    const idle = await handshake(own)
    const body = JSON.stringify(transfer())
    const headers = { "content-type": json, "content-length": body.length, expect: "100-continue" }
    const running = request(`${own.url}/v1/events`, { method: "POST", headers, ca: authority.cert, agent: false })
    const answer = new Promise<number | undefined>((resolve, reject) =>
      running.once("response", ({ statusCode }) => resolve(statusCode)).once("error", reject)
    )
    running.flushHeaders()
    // the server has it, and waits for its body
    await new Promise((resolve) => running.once("continue", resolve))
    const unfinished = connectPlain(own.port, "127.0.0.1")
    await new Promise((resolve) => unfinished.once("connect", resolve))
    const ended = Promise.all(
      [idle, unfinished].map((socket) => new Promise((resolve) => socket.on("error", () => {}).once("close", resolve)))
    )
    idle.resume()
    unfinished.resume()
    const stopped = own.stop()
    await ended
    running.end(body)
    expect(await answer).toBe(202)
    await stopped
  })
})

describe("certificates of clients", () => {
  const rules = certificateRules(
    JSON.stringify([
      { cn: "loader", scopes: ["ingest"] },
      { san: "URI:spiffe://acme/app", name: "acme-app", scopes: ["ingest", "read"], tenant: "acme" }
    ])
  )
  const access = { isRequired: true, certificate: certificateReader(rules) }
  const loader = certificate("loader", { by: authority })
  const app = certificate("whatever", { by: authority, sans: ["URI:spiffe://acme/app"] })
  const unknown = certificate("stranger", { by: authority })
  const foreign = certificate("loader", { by: others })
  const codeOf = (text: string) => (JSON.parse(text) as { readonly error?: { readonly code: string } }).error?.code
  let required: Server
  let optional: Server
  beforeAll(async () => {
    required = await serve({ ...filesOf("required"), ca }, { access })
    optional = await serve({ ...filesOf("optional"), ca, needsClients: false }, { access })
  })

  test("a certificate is a principal with its scopes and its tenant", async () => {
    for (const server of [required, optional]) {
      expect((await ask(`${server.url}/v1/events`, loader, JSON.stringify(transfer()))).status).toBe(202)
      const read = await ask(`${server.url}/v1/topics`, loader)
      expect([read.status, codeOf(read.text)]).toEqual([403, "forbidden"])
      expect((await ask(`${server.url}/v1/topics`, app)).status).toBe(200)
      const event = { ...transfer(), tenant: "globex" }
      const { text } = await ask(`${server.url}/v1/events`, app, JSON.stringify(event))
      expect(text).toContain("wrong_tenant")
    }
  })
  test("a certificate that is nobody's is refused with its name", async () => {
    const answer = await ask(`${required.url}/v1/topics`, unknown)
    expect([answer.status, codeOf(answer.text)]).toEqual([401, "unauthenticated"])
    expect(answer.text).toContain("CN=stranger")
  })
  test("where certificates are required, no connection works without one of the authority", async () => {
    await expect(ask(`${required.url}/healthz`)).rejects.toThrow()
    await expect(ask(`${required.url}/healthz`, foreign)).rejects.toThrow()
  })
  test("where they are optional, health is open, and a name of another authority does not count", async () => {
    expect((await ask(`${optional.url}/healthz`)).status).toBe(200)
    expect((await ask(`${optional.url}/v1/topics`)).status).toBe(401)
    const answer = await ask(`${optional.url}/v1/events`, foreign, JSON.stringify(transfer()))
    expect([answer.status, codeOf(answer.text)]).toEqual([401, "unauthenticated"])
  })
  test("a server that needs no credential does not take a certificate that is not accepted for none", async () => {
    const open = { isRequired: false, certificate: certificateReader(rules) }
    const server = await serve({ ...filesOf("open"), ca, needsClients: false }, { access: open })
    expect((await ask(`${server.url}/v1/topics`)).status).toBe(200)
    for (const sent of [unknown, foreign]) {
      const answer = await ask(`${server.url}/v1/topics`, sent)
      expect([answer.status, codeOf(answer.text)]).toEqual([401, "unauthenticated"])
    }
    expect((await ask(`${server.url}/v1/topics`, loader)).status).toBe(403)
    const { text } = await ask(`${server.url}/v1/credential`, app)
    expect(JSON.parse(text)).toMatchObject({ kind: "certificate", name: "acme-app" })
    expect(Date.parse((JSON.parse(text) as { readonly expires_at: string }).expires_at)).toBeGreaterThan(Date.now())
  })
  test("WebSockets have the principal of the certificate, too", async () => {
    const client = await webSocket(`${required.url}/v1/topics/alerts.v1/stream`, { ...app, ca: authority.cert })
    expect(client.refused).toBeUndefined()
    client.socket.terminate()
    const refused = await webSocket(`${required.url}/v1/topics/alerts.v1/stream`, { ...loader, ca: authority.cert })
    expect(refused.refused?.status).toBe(403)
  })
  test("a certificate that expires while its connection is open is refused from then on", async () => {
    let now = Date.now()
    const own = await serve(
      { ...filesOf("expiring"), ca },
      { access: { isRequired: true, certificate: certificateReader(rules, () => now) }, limits: { recheckMs: 50 } }
    )
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: authority.cert, ...app })
    const first = await ask(`${own.url}/v1/topics`, { agent })
    expect(first.status).toBe(200)
    const followed = await webSocket(`${own.url}/v1/topics/alerts.v1/stream`, { ...app, ca: authority.cert })
    now += 2 * 86_400_000
    const later = await ask(`${own.url}/v1/topics`, { agent })
    expect([later.status, later.port]).toEqual([401, first.port])
    expect(later.text).toMatch(/the client's certificate expired at \d{4}-/)
    expect(await followed.closed()).toEqual({ code: 4006, reason: "unauthenticated" })
    agent.destroy()
  })
  // Deno's client hands out no session: tls-deno.test.ts has the server's part
  test.skipIf(isDeno)("a session of an authority that was taken away cannot be resumed", async () => {
    const changing = put("changing-ca.pem", authority.cert)
    const own = await serve({ ...filesOf("changing"), ca: changing, pollMs: 20 }, { access })
    const opened = await handshake(own, loader)
    const session = await new Promise<Buffer>((resolve) => {
      opened.once("session", resolve)
      opened.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    })
    opened.destroy()
    /** Whether a client of the authority gets an answer. */
    const isServed = async (more: ConnectionOptions = {}) => {
      const socket = await handshake(own, { ...loader, ...more }).catch(() => undefined)
      if (socket === undefined) return false
      const answer = await new Promise<string>((resolve) => {
        socket.once("data", (data: Buffer) => resolve(data.toString())).on("error", () => resolve(""))
        socket.once("close", () => resolve(""))
        socket.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
      })
      socket.destroy()
      return answer !== ""
    }
    expect(await isServed({ session })).toBe(true)
    // one of the authorities goes, but not that of the client
    put("changing-ca.pem", `${authority.cert}${others.cert}`)
    await expect.poll(() => isServed({ ...foreign, ca: authority.cert }), { timeout: 20_000 }).toBe(true)
    expect(await isServed({ session })).toBe(true)
    put("changing-ca.pem", others.cert)
    await expect.poll(() => isServed(), { timeout: 20_000 }).toBe(false)
    expect(await isServed({ session })).toBe(false)
  })
})

describe("files that change", () => {
  const wait = { timeout: 10_000, interval: 20 }
  test("a new certificate is used without a restart, open connections go on, and half a pair is never used", async () => {
    const files = filesOf("rotated", certificate("first", { by: authority, sans }))
    const server = await serve({ ...files, pollMs: 20 })
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: authority.cert })
    const before = await ask(`${server.url}/healthz`, { agent })
    const second = certificate("second", { by: authority, sans })
    put("rotated.pem", second.cert)
    // looked at several times in this state
    for (let i = 0; i < 20; i++) {
      expect(await servedBy(server)).toBe("first")
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    put("rotated.key", second.key)
    await expect.poll(() => servedBy(server), wait).toBe("second")
    const after = await ask(`${server.url}/healthz`, { agent })
    agent.destroy()
    expect([after.status, after.port === before.port]).toEqual([200, true])
  })
  test("an expired or damaged certificate does not replace the one that works", async () => {
    const files = filesOf("kept", certificate("kept", { by: authority, sans }))
    const server = await serve({ ...files, pollMs: 10 })
    const expired = certificate("expired", { by: authority, sans, until: Date.now() - 1_000 })
    for (const text of [expired.cert, "-----BEGIN CERTIFICATE-----\nMIIB", ""]) {
      put("kept.key", expired.key)
      put("kept.pem", text)
      for (let i = 0; i < 10; i++) {
        expect(await servedBy(server)).toBe("kept")
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    }
    const next = certificate("next", { by: authority, sans })
    put("kept.key", next.key)
    put("kept.pem", next.cert)
    await expect.poll(() => servedBy(server), wait).toBe("next")
  })
})

describe("a start is refused, and says what to do", () => {
  const good = certificate("server", { by: authority, sans })
  const other = certificate("other", { by: authority, sans })
  const cases: ReadonlyArray<readonly [string, () => TlsOptions, RegExp, RegExp]> = [
    ["no such file", () => ({ ...filesOf("r1"), cert: join(folder, "none.pem") }), /cannot be read: ENOENT/, /exists/],
    [
      "the key of another certificate",
      () => ({ ...filesOf("r2", good), key: filesOf("r3", other).key }),
      /the key .*r3\.key does not belong to the certificate .*r2\.pem/,
      /the key that the certificate was made with/
    ],
    [
      "an expired certificate",
      () => filesOf("r4", certificate("old", { by: authority, until: Date.UTC(2020, 0, 1) })),
      /r4\.pem expired at 2020-01-01T00:00:00\.000Z/,
      /renew it/
    ],
    [
      "a certificate of the future",
      () => filesOf("r5", certificate("new", { by: authority, from: Date.now() + 3_600_000 })),
      /is valid from .* on/,
      /clock/
    ],
    ["a text", () => filesOf("r6", { ...good, cert: "hello" }), /does not have certificates in PEM format/, /BEGIN/],
    ["no key", () => filesOf("r7", { ...good, key: good.cert }), /does not have a private key/, /PRIVATE KEY/],
    [
      "authorities that are none",
      () => ({ ...filesOf("r8"), ca: put("r8.ca", "hello") }),
      /r8\.ca does not have certificates/,
      /BEGIN/
    ]
  ]
  test.each(cases)("%s", async (_, options, message, advice) => {
    const error = await start({ tls: options() }).catch((cause: unknown) => cause as Error & { readonly try: string })
    expect(error).toMatchObject({ message: expect.stringMatching(message) as unknown })
    expect((error as { readonly try: string }).try).toMatch(advice)
  })
})
