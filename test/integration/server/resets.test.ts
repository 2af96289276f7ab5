// 5,000 connections that are reset at every point of a stream's opening, by server-sent events and WebSockets: nothing of them is left.
import { connect, type Socket } from "node:net"
import { setImmediate, setTimeout } from "node:timers/promises"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Effect from "effect/Effect"
import { expect, onTestFinished, test } from "vitest"
import { make } from "../../../src/memory/log.ts"
import { anyone } from "../../../src/server/access/principal.ts"
import { alert, declare, publish, start, stream, type Server } from "../../support/http.ts"
import { webSocket } from "../../support/websocket.ts"

const path = "/v1/topics/alerts.v1/stream?from=earliest"
const requests = {
  sse: `GET ${path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer mr_a\r\n\r\n`,
  webSocket: `GET ${path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer mr_a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`
}
const count = 5_000
const slots = 200

/** Where a connection is reset: after so many bytes of the request, or after it, turns of the event loop, milliseconds or parts of the answer. */
const pointsOf = (request: string): ReadonlyArray<(socket: Socket) => Promise<void>> => {
  const write = (socket: Socket, text: string) => new Promise<void>((sent) => void socket.write(text, () => sent()))
  return [
    ...Array.from({ length: request.length }, (_, bytes) => (socket: Socket) => write(socket, request.slice(0, bytes))),
    // the server is in this process, so that each of its steps is one of these turns
    ...Array.from({ length: 40 }, (_, turns) => async (socket: Socket) => {
      await write(socket, request)
      for (let i = 0; i < turns; i++) await setImmediate()
    }),
    ...Array.from({ length: 30 }, (_, ms) => async (socket: Socket) => {
      await write(socket, request)
      await setTimeout(ms)
    }),
    ...Array.from({ length: 6 }, (_, parts) => async (socket: Socket) => {
      let seen = 0
      await new Promise<void>((done) => {
        socket.on("data", () => {
          if (++seen > parts) done()
        })
        void write(socket, request)
        globalThis.setTimeout(done, 60)
      })
    })
  ]
}

const reset = async ({ port }: Server, point: (socket: Socket) => Promise<void>): Promise<void> => {
  const socket = connect(port, "127.0.0.1").on("error", () => {})
  await new Promise((open) => socket.once("connect", open))
  await point(socket)
  const closed = new Promise((done) => socket.once("close", done))
  socket.resetAndDestroy()
  await closed
}
const resets = async (server: Server, all: ReadonlyArray<(socket: Socket) => Promise<void>>): Promise<void> => {
  let next = 0
  const worker = async () => {
    while (next < all.length) await reset(server, all[next++]!)
  }
  // fewer than there are slots, so that each is opened
  await Promise.all(Array.from({ length: slots / 4 }, worker))
}

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void
/** What a process holds on to: sockets, timers and bytes of memory. */
const held = () => {
  collect()
  return {
    bytes: process.memoryUsage().heapUsed,
    resources: Object.fromEntries(
      [...Map.groupBy(process.getActiveResourcesInfo(), (kind) => kind)].map(([kind, all]) => [kind, all.length])
    )
  }
}
const metric = async (server: Server, name: string): Promise<number> =>
  Number(new RegExp(`^${name} (\\d+)`, "m").exec(await (await fetch(`${server.url}/metrics`)).text())?.[1])

test("connections that are reset at every point of a stream's opening leave no slot, no reader of the log, no timer and no memory behind", async () => {
  const log = make().log
  await declare(log)
  let readers = 0
  // as a log that is not in this process; each reader that the streams' shared tail opens is counted
  const slow: typeof log = {
    ...log,
    bounds: (topic) => Effect.delay(log.bounds(topic), "5 millis"),
    read: (...given) => Effect.delay(log.read(...given), "2 millis"),
    open: (...given) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          readers++
          return log.open(...given)
        }),
        () => Effect.sync(() => readers--)
      )
  }
  // as keys that are looked up in a database: a client may be gone before its stream is opened
  const keys = { principalOf: () => setTimeout(2, anyone) }
  const limits = { streams: slots, headersMs: 1_000, requestMs: 2_000 }
  const server = await start({ limits, access: { isRequired: false, keys } }, slow)
  onTestFinished(() => server.stop())
  await publish(
    server,
    Array.from({ length: 60 }, (_, i) => alert(`a-${i}`, `K${i % 9}`))
  )
  // one that stays, so that what the streams of a topic share stays as well
  const lasting = await stream(server.url + path)
  await lasting.records(60)
  const shared = readers
  const points = Object.values(requests).flatMap(pointsOf)
  const all = Array.from({ length: count }, (_, i) => points[i % points.length]!)
  // compiled code and connections' caches are there afterwards
  await resets(server, all.slice(0, count / 5))
  const isQuiet = async () =>
    (await metric(server, "millrace_streams_open")) === 1 && readers === shared ? "quiet" : "streams are open"
  await expect.poll(isQuiet, { timeout: 20_000 }).toBe("quiet")
  const before = held()
  await resets(server, all)
  await expect.poll(isQuiet, { timeout: 20_000 }).toBe("quiet")
  /** What there is more than before; 4 MB are 800 bytes for each connection. */
  const more = () => {
    const { bytes, resources } = held()
    const ofKind = (kind: string) => Math.max(0, (resources[kind] ?? 0) - (before.resources[kind] ?? 0))
    // a request for the metrics may be under way
    const sockets = ofKind("TCPSocketWrap") > 4
    return { timers: ofKind("Timeout") > 4, sockets, memory: bytes - before.bytes > 4_000_000 }
  }
  await expect.poll(more, { timeout: 20_000 }).toEqual({ timers: false, sockets: false, memory: false })
  // a client of each kind for each slot: none is taken any more
  const open = await Promise.all(
    Array.from({ length: slots - 1 }, async (_, i) =>
      i % 2 === 0 ? await stream(server.url + path) : await webSocket(server.url + path)
    )
  )
  for (const client of open) {
    if ("status" in client) expect(client.status).toBe(200)
    else expect(client.refused).toBeUndefined()
    client.close()
  }
  await expect.poll(isQuiet, { timeout: 20_000 }).toBe("quiet")
  lasting.close()
}, 120_000)
