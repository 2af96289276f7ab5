// Many clients of streams, of which a tenth does not read: memory stays flat, the others get every record once, and no slot is leaked.
import { connect } from "node:net"
import { readFileSync } from "node:fs"
import { setTimeout } from "node:timers/promises"
import { expect, onTestFinished, test } from "vitest"
import { alert, idsOf, publish, start, stream } from "../../support/http.ts"
import { isLong } from "../../support/size.ts"
import { webSocket } from "../../support/websocket.ts"
import { Application, Projection, ReadModel, Topic } from "../../../src/index.ts"
import * as Schema from "effect/Schema"
import type { ServeOptions } from "../../../src/server/server.ts"

const path = "/v1/topics/alerts.v1/stream"
const clients = 1_000
const rounds = isLong ? 100 : 50
const perRound = { small: 8, large: 20 }
const x = "x".repeat(10_000)

// On Deno the clients and the server, which share a process here, are too slow for a crowd of this size: readers count as slow, and buffers take what
// clients that stand still should not have taken. The routes themselves run there, in streams.test.ts and websocket.test.ts.
test.skipIf("Deno" in globalThis)(
  "1,000 clients of which a tenth does not read get every record once, in flat memory, and keep no slot",
  async () => {
    const server = await start({ limits: { streams: clients, slowClientMs: 1_000, recentBytes: 1_000_000 } })
    onTestFinished(() => server.stop())
    const still = Array.from({ length: clients / 10 }, (_, i) => {
      const socket = connect(server.port, "127.0.0.1").on("error", () => {})
      const upgrade =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
      socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n${i % 2 === 0 ? upgrade : ""}\r\n`)
      socket.once("data", () => socket.pause())
      return socket
    })
    // those that read get the small records alone, since all large ones would be 5 GB for them
    const small = `${server.url}${path}?value.score.gte=500`
    const events = await Promise.all(Array.from({ length: clients * 0.45 }, () => stream(small)))
    const sockets = await Promise.all(Array.from({ length: clients * 0.45 }, () => webSocket(small)))
    const before = process.memoryUsage().rss
    const total = rounds * perRound.small
    /** The ids of all records, without the records: the memory of the clients is in this process, too. */
    const idsFrom = async (next: () => Promise<ReadonlyArray<string>>) => {
      const ids: Array<string> = []
      while (ids.length < total) ids.push(...(await next()))
      return ids
    }
    const read = Promise.all([
      ...events.map((client) => idsFrom(async () => idsOf(await client.records(1)))),
      ...sockets.map((client) =>
        idsFrom(async () =>
          (await client.records(1)).map(({ data }) => (data as { readonly alert_id: string }).alert_id)
        )
      )
    ])
    for (let i = 0; i < rounds; i++) {
      // a client that does not read is behind by more than sockets hold
      const large = Array.from({ length: perRound.large }, (_, j) => {
        const id = `l-${i}-${j}`
        return Object.assign(alert(id, `C${j}`), { value: JSON.stringify({ alert_id: id, score: 1, x }) })
      })
      await publish(server, [
        ...large,
        ...Array.from({ length: perRound.small }, (_, j) => alert(`s-${i}-${j}`, `C${j}`))
      ])
      await setTimeout(5)
    }
    for (const ids of await read) expect([new Set(ids).size, ids.length]).toEqual([total, total])
    // those that do not read would have 1 GB waiting for them
    expect(process.memoryUsage().rss - before).toBeLessThan(700_000_000)
    const metrics = async () => (await fetch(`${server.url}/metrics`)).text()
    // they are disconnected while they are still there
    const slow = async () =>
      Number(/millrace_streams_ended_total\{reason="slow_client"\} (\d+)/.exec(await metrics())?.[1])
    await expect.poll(slow, { timeout: 90_000 }).toBe(clients / 10)
    for (const { close } of [...events, ...sockets]) close()
    for (const socket of still) socket.destroy()
    const open = async () => /millrace_streams_open (\d+)/.exec(await metrics())?.[1]
    await expect.poll(open, { timeout: 30_000 }).toBe("0")
  },
  240_000
)

test("a client that is disconnected before its first record resumes from the id of the opening", async () => {
  const server = await start()
  onTestFinished(() => server.stop())
  const first = await stream(server.url + path)
  let id: string | undefined
  while (id === undefined) id = (await first.frame())!.id
  first.close()
  await publish(server, [alert("missed", "M")])
  const resumed = await stream(server.url + path, { "last-event-id": id })
  expect(idsOf(await resumed.records(1))).toEqual(["missed"])
  resumed.close()
  const since = await stream(`${server.url}${path}?from=${new Date(Date.now() - 60_000).toISOString()}`)
  expect(idsOf(await since.records(1))).toEqual(["missed"])
  since.close()
})

test("an application without the topic alerts.v1 has no route of alerts, also not in its description", async () => {
  const orders = Topic.records("orders.v1", { value: { order: Schema.String }, key: "order" })
  const table = ReadModel.table("order_rows", { columns: { order: Schema.String }, primaryKey: ["order"] })
  const projection = Projection.make({
    name: "orders",
    version: 1,
    source: orders,
    writes: [table],
    handle: ({ order }, out) => out.upsert(table, { order })
  })
  const application = Application.make({ name: "shop", projections: [Projection.async(projection)] })
  const server = await start({ application: application as unknown as ServeOptions["application"] })
  onTestFinished(() => server.stop())
  expect((await fetch(`${server.url}/v1/alerts`)).status).toBe(404)
  expect(await (await fetch(`${server.url}/openapi.json`)).text()).not.toContain("alerts")
})

test("the example of the guide prints what it reads, and goes on where it was after the connection is lost", async () => {
  const server = await start()
  onTestFinished(() => server.stop())
  const page = readFileSync(new URL("../../../docs/guide/subscriptions.md", import.meta.url), "utf8")
  const [, code] = /```js\n(const follow = [\s\S]*?)```/.exec(page) ?? []
  const lines: Array<unknown> = []
  const open: Array<WebSocket> = []
  class Kept extends WebSocket {
    constructor(url: string, protocols?: string | Array<string>) {
      super(url, protocols)
      open.push(this)
    }
  }
  const text = code!
    .replaceAll("ws://127.0.0.1:7070", server.url.replace("http", "ws"))
    .replaceAll("orders.big.v1", "alerts.v1")
  new Function("WebSocket", "console", text.replace('"value.cents.gte": "5000"', '"value.score.gte": "5"'))(Kept, {
    log: (line: unknown) => lines.push(line)
  })
  await expect.poll(() => open[0]?.readyState).toBe(1)
  await setTimeout(50)
  open[0]!.close()
  await publish(server, [alert("e-1", "E"), alert("e-2", "E")])
  await expect.poll(() => lines.length, { timeout: 20_000 }).toBe(2)
  expect(lines.map((line) => (line as { readonly alert_id: string }).alert_id)).toEqual(["e-1", "e-2"])
})
