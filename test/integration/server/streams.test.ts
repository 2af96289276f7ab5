// HTTP streams of records as server-sent events, and how a server starts and closes. The log is in memory.
import { connect } from "node:net"
import { setTimeout } from "node:timers/promises"
import * as Effect from "effect/Effect"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { PortInUse } from "../../../src/server/errors.ts"
import {
  alert,
  declare,
  faulty,
  get,
  idsOf,
  json,
  lines,
  many,
  post,
  publish,
  recordsOf,
  start,
  stream,
  type Frame,
  type Server
} from "../../support/http.ts"

describe("streams", () => {
  let server: Server
  beforeAll(async () => {
    server = await start({ limits: { heartbeatMs: 100, slowClientMs: 400, streams: 20, recentBytes: 12 * 4_000 } })
  })
  afterAll(() => server.stop())

  test("alerts are streamed as they are published, with the text of the record; comments have no id", async () => {
    const alerts = await stream(`${server.url}/v1/alerts`)
    expect([alerts.status, alerts.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"])
    const record = alert("live-1", "N1")
    await publish(server, [record])
    const [frame] = await alerts.records(1)
    expect(frame).toMatchObject({ event: "alert", data: record.value })
    expect(frame!.id).toMatch(/^\d+(\.\d+){11}$/)
    const next = await alerts.frame()
    expect(next).toEqual({ comment: "heartbeat" })
    alerts.close()
  })

  test("from=latest starts after the last record, from=earliest at the first", async () => {
    await publish(server, [alert("old", "N2")])
    const [latest, earliest] = [
      await stream(`${server.url}/v1/alerts`),
      await stream(`${server.url}/v1/alerts?from=earliest`)
    ]
    await publish(server, [alert("new", "N2")])
    expect(idsOf(await latest.records(1))).toEqual(["new"])
    const all = idsOf(await earliest.records((await recordsOf(server.log, "alerts.v1")).length))
    expect(all).toEqual(expect.arrayContaining(["old", "new"]))
    expect(new Set(all).size).toBe(all.length)
    latest.close()
    earliest.close()
  })

  test("a client that often disconnects and resumes gets every record once, in the order of each key", async () => {
    const sent: Array<string> = []
    const first = await stream(`${server.url}/v1/alerts`)
    const received: Array<Frame> = []
    const writer = (async () => {
      for (let i = 0; i < 60; i++) {
        const batch = Array.from({ length: 25 }, (_, j) => alert(`r-${i}-${j}`, `R${(i + j) % 17}`))
        sent.push(...batch.map(({ eventId }) => eventId!))
        await publish(server, batch)
        await setTimeout(3)
      }
    })()
    received.push(...(await first.records(10)))
    first.close()
    while (received.length < 60 * 25) {
      const resumed = await stream(`${server.url}/v1/alerts`, { "last-event-id": received.at(-1)!.id! })
      received.push(...(await resumed.records(Math.min(130, 60 * 25 - received.length))))
      resumed.close()
    }
    await writer
    const ids = idsOf(received)
    expect(ids.toSorted()).toEqual(sent.toSorted())
    for (let key = 0; key < 17; key++) {
      const ofKey = received.map(({ data }) => JSON.parse(data!)).filter(({ entity_id }) => entity_id === `R${key}`)
      const order = ofKey.map(({ alert_id }: { alert_id: string }) => sent.indexOf(alert_id))
      expect(order).toEqual(order.toSorted((a, b) => a - b))
    }
  })

  test("a burst of records of one key arrives completely and in order, from memory and from the log", async () => {
    const own = await start()
    const live = await stream(`${own.url}/v1/alerts`)
    const burst = Array.from({ length: 1_200 }, (_, i) => alert(`b-${i}`, "B"))
    await publish(own, burst)
    const ids = burst.map(({ eventId }) => eventId)
    expect(idsOf(await live.records(1_200))).toEqual(ids)
    const late = await stream(`${own.url}/v1/alerts?from=earliest`)
    expect(idsOf(await late.records(1_200))).toEqual(ids)
    await own.stop()
  })

  test("a retry record, which is a copy of an earlier record, is in no page of records and in no stream", async () => {
    const record = alert("retried-1", "N21")
    const all = await stream(`${server.url}/v1/alerts?from=latest`)
    await all.frame()
    await publish(server, [record])
    await publish(server, [{ ...record, headers: { ...record.headers, "millrace-retry": "signals/0/0a1b2c3d" } }])
    await publish(server, [alert("retried-2", "N21")])
    expect(idsOf(await all.records(2))).toEqual(["retried-1", "retried-2"])
    all.close()
    const pages = await Promise.all(
      Array.from({ length: 12 }, (_, partition) =>
        get<{ readonly records: ReadonlyArray<{ readonly value: { readonly alert_id: string } }> }>(
          `${server.url}/v1/topics/alerts.v1/records?partition=${partition}&limit=1000`
        )
      )
    )
    const ids = pages.flatMap(({ body }) => body.records.map(({ value }) => value.alert_id))
    expect(ids.filter((id) => id.startsWith("retried-"))).toEqual(["retried-1", "retried-2"])
  })

  test("the list of topics says which projections read a topic, and which look values of it up", async () => {
    const { body } = await get<{
      readonly topics: ReadonlyArray<{ readonly name: string; readonly read_by: ReadonlyArray<string> }>
    }>(`${server.url}/v1/topics`)
    const readers = Object.fromEntries(body.topics.map(({ name, read_by: readBy }) => [name, readBy]))
    expect([readers["events.raw.v1"], readers["features.entity.v1"]]).toEqual([["signals"], ["signals"]])
  })

  test("records are filtered by tenant and by entity_id", async () => {
    const tenant = await stream(`${server.url}/v1/alerts?tenant=globex`)
    const entity = await stream(`${server.url}/v1/alerts?entity_id=F2`)
    await publish(server, [
      alert("f-1", "F1"),
      alert("f-2", "F2"),
      alert("f-3", "F3", "globex"),
      alert("f-4", "F2", "globex")
    ])
    expect(idsOf(await tenant.records(2)).toSorted()).toEqual(["f-3", "f-4"])
    expect(idsOf(await entity.records(2))).toEqual(["f-2", "f-4"])
    tenant.close()
    entity.close()
  })

  test("every declared topic can be streamed, with its deletions", async () => {
    const planes = await stream(`${server.url}/v1/topics/features.entity.v1/stream`)
    await post(server, '{"key":"N9","value":null}', { "content-type": json }, "?topic=features.entity.v1")
    expect(await planes.records(1)).toMatchObject([{ event: "delete", data: '{"key":"N9","value":null}' }])
    planes.close()
  })

  test("an invalid id, the id of another topic and one beyond the end are refused", async () => {
    for (const [id, status] of [
      ["x", 400],
      ["1.2.3", 400],
      [Array.from({ length: 12 }, () => 99_999).join("."), 410]
    ] as const) {
      const answer = await get(`${server.url}/v1/alerts`, { "last-event-id": id })
      expect([id, answer.status]).toEqual([id, status])
      expect(answer.body.error.try).toContain("from=")
    }
  })

  test("a client that does not read is disconnected, and the memory of the server does not grow", async () => {
    const big = Array.from({ length: 500 }, (_, i) => ({
      ...alert(`s-${i}`, `S${i}`),
      value: JSON.stringify({ x: "x".repeat(50_000) })
    }))
    const slow = async () => {
      const text = await (await fetch(`${server.url}/metrics`)).text()
      return Number(/millrace_streams_ended_total\{reason="slow_client"\} (\d+)/.exec(text)?.[1] ?? 0)
    }
    const slowBefore = await slow()
    const socket = connect(server.port, "127.0.0.1")
    socket.write("GET /v1/alerts HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await new Promise((done) => socket.once("data", done))
    socket.pause()
    const closed = new Promise((done) => socket.once("close", done).once("error", done))
    const before = process.memoryUsage().rss
    await publish(server, big)
    // more than one where the runtime's fetch left an aborted stream open
    await expect.poll(slow, { timeout: 20_000 }).toBeGreaterThan(slowBefore)
    expect(process.memoryUsage().rss - before).toBeLessThan(150_000_000)
    socket.destroy()
    await closed
  })

  test("streams above the limit are refused", async () => {
    const open = await Promise.all(Array.from({ length: 20 }, () => stream(`${server.url}/v1/alerts`)))
    expect((await fetch(`${server.url}/v1/alerts`)).status).toBe(429)
    for (const { close } of open) close()
    await expect
      .poll(
        async () => {
          const again = await stream(`${server.url}/v1/alerts`)
          again.close()
          return again.status
        },
        { timeout: 20_000 }
      )
      .toBe(200)
  })
})

describe("starting and closing a server", () => {
  test("the error of a port in use has the port and the remedy", async () => {
    const server = await start()
    const error = await start({ port: server.port }).catch((error: unknown) => error)
    expect(error).toBeInstanceOf(PortInUse)
    expect(error).toMatchObject({ port: server.port, try: expect.stringContaining("--port") })
    await server.stop()
    const again = await start({ port: server.port })
    await again.stop()
  })

  test("/readyz returns what the caller's check returns, /healthz always 200", async () => {
    let ready = false
    const server = await start({ ready: Effect.sync(() => ({ ready, lag: 7 })) })
    const first = await fetch(`${server.url}/readyz`)
    expect([first.status, await first.json()]).toEqual([503, { ready: false, lag: 7 }])
    ready = true
    expect((await fetch(`${server.url}/readyz`)).status).toBe(200)
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200)
    await server.stop()
  })

  test("a server with the role gateway has no streams, and one with the role api accepts no events", async () => {
    const limits = { closeMs: 600_000 }
    const gateway = await start({ roles: ["gateway"], limits })
    const api = await start({ roles: ["api"], limits })
    expect((await post(gateway, lines(many(1)))).status).toBe(202)
    expect((await fetch(`${gateway.url}/v1/alerts`)).status).toBe(404)
    expect((await post(api, lines(many(1)))).status).toBe(404)
    const alerts = await stream(`${api.url}/v1/alerts`)
    expect(alerts.status).toBe(200)
    alerts.close()
    for (const server of [gateway, api]) expect((await fetch(`${server.url}/healthz`)).status).toBe(200)
    // no connection that a client opened ahead keeps them
    await Promise.all([gateway.stop(), api.stop()])
  })

  test("a closing server finishes running requests, ends streams with the reason, and refuses new requests", async () => {
    const { calls, hold, log } = faulty()
    await declare(log)
    const server = await start({ limits: { closeMs: 600_000 } }, log)
    const alerts = await stream(`${server.url}/v1/alerts`)
    const release = hold()
    const posted = post(server, lines(many(1)))
    await expect.poll(calls, { timeout: 20_000 }).toBe(1)
    const stopped = server.stop()
    const refused = () =>
      fetch(`${server.url}/healthz`).then(
        () => false,
        () => true
      )
    await expect.poll(refused, { timeout: 20_000 }).toBe(true)
    release()
    expect((await posted).status).toBe(202)
    const frames: Array<Frame> = []
    for (let frame = await alerts.frame(); frame !== undefined; frame = await alerts.frame()) frames.push(frame)
    expect(frames.at(-1)).toMatchObject({ event: "end", data: expect.stringContaining('"reason":"shutdown"') })
    expect(frames.at(-1)!.id).toBeUndefined()
    await stopped
  })

  test("a request that never ends does not keep the server from closing", async () => {
    const { calls, hold, log } = faulty()
    await declare(log)
    const server = await start({ limits: { closeMs: 200 } }, log)
    const release = hold()
    const posted = post(server, lines(many(1))).catch(() => "cut")
    await expect.poll(calls, { timeout: 20_000 }).toBe(1)
    await server.stop()
    expect(await posted).toBe("cut")
    release()
  })
})
