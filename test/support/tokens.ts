// What position tokens mean to the streams, the changes and the aggregates of a whole system over HTTP: the same tests for each log.
import { setTimeout } from "node:timers/promises"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { Schema } from "effect"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, test } from "vitest"
import { Application, Event, Projection, ReadModel, Topic } from "../../src/index.ts"
import { parseToken, positionToken, type TokenPosition } from "../../src/log/position-token.ts"
import { changeSource } from "../../src/server/changes/source.ts"
import type { ServeOptions } from "../../src/server/server.ts"
import { viewReader } from "../../src/server/views/reader.ts"
import { type Database, openQueries } from "../../src/system/database.ts"
import { openSystem, runProjections, runRelay } from "../../src/system/system.ts"
import { counterOf } from "./counter.ts"
import { json, start, stream, type Server } from "./http.ts"
import { webSocket } from "./websocket.ts"

let made = 0
/** An id that no other run of a test has. */
const fresh = (name: string) => `${name}-${++made}`

/** A token for so many positions behind those of a token. */
const ahead = (token: string, by: number) =>
  positionToken(
    parseToken(token)!.map(({ partition, position, topic }) => ({ topic, partition, position: position + by }))
  )
interface Order {
  readonly id: string
  readonly at: number
}

/** An application whose topics and aggregate have names of their own. */
const applicationOf = (name: string) => {
  const Placed = Event.make("placed", { id: Schema.String, at: Schema.Int })
  const orders = Topic.events(`${name}.orders`, { events: [Placed], key: "id", eventTime: "at", partitions: 3 })
  const receipts = Topic.records(`${name}.receipts`, { value: { id: Schema.String }, key: "id", partitions: 2 })
  const kept = ReadModel.table("kept", { columns: { id: Schema.String }, primaryKey: ["id"] })
  const keeper = Projection.make({
    name: `${name}_keeper`,
    version: 1,
    source: orders,
    writes: [kept, receipts],
    handle: ({ id }, out) => {
      out.upsert(kept, { id })
      out.publish(receipts, { id })
    }
  })
  return Application.make({
    name,
    aggregates: [counterOf(`${name}_counter`, 2)],
    projections: [Projection.async(keeper)]
  })
}

/** Adds the tests over a database and a log that `open` gives. `name` begins the names of topics. */
export const tokenTests = (
  name: string,
  open: Effect.Effect<Omit<Database, "failed" | "embedded">, unknown, Scope.Scope>
) => {
  const scope = Scope.makeUnsafe()
  const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
  const [orders, receipts, counter] = [`${name}.orders`, `${name}.receipts`, `${name}_counter`]
  let server: Server
  let brief: Server

  const post = async (path: string, body: unknown) => {
    const response = await fetch(server.url + path, {
      method: "POST",
      body: JSON.stringify(body),
      headers: { "content-type": json }
    })
    expect([200, 201, 202]).toContain(response.status)
    return ((await response.json()) as { readonly token: string }).token
  }
  const place = (id: string, at = Date.now()) => post("/v1/events", { type: "placed", id, at })
  const refusal = async (path: string, at = server) => {
    const response = await fetch(at.url + path)
    const { error } = (await response.json()) as { readonly error: { code: string; message: string; try: string } }
    return [response.status, error.code, error.message, error.try]
  }
  /** The ids of the messages of a stream, up to one. */
  const idsUntil = async (path: string, last: string) => {
    const opened = await stream(server.url + path)
    expect(opened.status, path).toBe(200)
    const ids: Array<string> = []
    while (!ids.includes(last)) {
      const [frame] = await opened.records(1)
      ids.push((JSON.parse(frame!.data!) as { readonly id: string }).id)
    }
    opened.close()
    return ids
  }
  /** Waits until the projection has processed everything, and its messages are in the log. */
  const settled = async (id: string) => {
    await idsUntil(`/v1/topics/${receipts}/stream?from=earliest`, id)
    // what comes now has a later time
    await setTimeout(20)
  }

  beforeAll(async () => {
    const database = { ...(await run(open)), embedded: false, failed: Effect.never }
    const application = applicationOf(name) as unknown as ServeOptions["application"]
    const system = await run(openSystem(application, database, { makesTopics: true }))
    await run(Effect.forkScoped(Effect.all([runProjections(system), runRelay(system)], { concurrency: "unbounded" })))
    const queries = await run(openQueries(database, 5_000))
    const options = {
      application,
      eventStore: system.eventStore,
      views: viewReader(queries, database.sql),
      changes: changeSource(queries, database.sql)
    }
    server = await start({ ...options, limits: { eventLoopDelayMs: 0, waitMs: 30_000 } }, system.log)
    brief = await start({ ...options, limits: { eventLoopDelayMs: 0, waitMs: 50 } }, system.log)
  }, 120_000)
  afterAll(async () => {
    await brief.stop()
    await server.stop()
    await Effect.runPromise(Scope.close(scope, Exit.void))
  })

  test("a stream from the token of an event has what follows the event, in every partition", async () => {
    for (const id of ["before", "before too", "long before"]) await place(id)
    await setTimeout(20)
    const at = Date.now()
    const token = await place("same key", at)
    const after = Array.from({ length: 9 }, (_, i) => `after ${i}`)
    for (const id of after) await place(id, at + 1)
    await place("same key", at + 1)
    const expected = [...after, "same key"].map((id) => [id, at + 1]).toSorted()
    const path = `/v1/topics/${orders}/stream?from=${token}`
    const [events, socket] = [await stream(server.url + path), await webSocket(server.url + path)]
    const valuesOf = (values: ReadonlyArray<unknown>) =>
      values.map((value) => [(value as Order).id, (value as Order).at]).toSorted()
    expect(valuesOf((await events.records(10)).map(({ data }) => JSON.parse(data!)))).toEqual(expected)
    expect(valuesOf((await socket.records(10)).map(({ data }) => data))).toEqual(expected)
    events.close()
    socket.close()
  })

  test("a stream of a derived topic from the token of an event has the message that follows from the event", async () => {
    const [long, source] = [fresh("long"), fresh("source")]
    await place(long)
    await settled(long)
    const token = await place(source)
    expect(await idsUntil(`/v1/topics/${receipts}/stream?from=${token}`, source)).toEqual([source])
  })

  test("changes of a view from the token of an event begin with the rows that have it", async () => {
    const id = fresh("kept")
    const token = await place(id)
    const opened = await stream(`${server.url}/v1/views/kept/changes?id=${id}&from=${token}`)
    const frames = await opened.records(3)
    opened.close()
    expect(frames.map(({ event }) => event)).toEqual(["snapshot", "upsert", "live"])
  })

  test("an aggregate waits for a command's token, and the stream of its topic starts behind the command", async () => {
    const path = `/v1/aggregates/${counter}/${fresh("one")}`
    const command = `${path}/commands/count`
    await post(command, { n: 1 })
    const token = await post(command, { n: 2 })
    const read = async (waitFor: string) => {
      const response = await fetch(`${server.url}${path}?waitFor=${waitFor}`)
      return ((await response.json()) as { readonly version: number }).version
    }
    expect(await read(token)).toBe(2)
    const next = ahead(token, 1)
    const waiting = read(next)
    await post(command, { n: 3 })
    expect(await waiting).toBe(3)
    const opened = await stream(`${server.url}/v1/topics/${counter}/stream?from=${token}`)
    const [frame] = await opened.records(1)
    opened.close()
    expect(JSON.parse(frame!.data!)).toEqual({ type: "counted", n: 3 })
    const never = ahead(token, 9)
    for (const read of [path, `${path}/events`])
      expect((await refusal(`${read}?waitFor=${never}`, brief)).slice(0, 2), read).toEqual([504, "not_yet"])
  })

  test("a stream waits for what the log does not have yet, and gets 504 after the limit", async () => {
    const token = await place("last")
    const [{ partition, position }] = parseToken(token) as readonly [TokenPosition]
    const next = positionToken([{ topic: orders, partition, position: position + 1 }])
    const path = `/v1/topics/${orders}/stream?from=${next}`
    const [status, code, message] = await refusal(path, brief)
    expect([status, code]).toEqual([504, "not_yet"])
    expect(message).toMatch(
      new RegExp(`^after 50 ms ${orders}/${partition} has positions 0 to ${position}, and the token is for`)
    )
    const waiting = stream(server.url + path)
    await place("last")
    const opened = await waiting
    expect(opened.status).toBe(200)
    await place("last")
    expect(JSON.parse((await opened.records(1))[0]!.data!)).toMatchObject({ id: "last" })
    opened.close()
  })

  test("a token for another topic, of no partition, or that cannot be read, and waitFor, are refused with what to do", async () => {
    const token = await post(`/v1/aggregates/${counter}/two/commands/count`, { n: 1 })
    const path = (topic: string, query: string) => `/v1/topics/${topic}/stream?${query}`
    expect(await refusal(path(orders, `from=${token}`))).toEqual([
      400,
      "invalid_parameter",
      `the token is for "${counter}", and ${orders} starts at a token for itself`,
      "read a topic that the token is for, or start at earliest, at latest or at a time"
    ])
    expect((await refusal(path(receipts, `from=${token}`)))[2]).toBe(
      `the token is for "${counter}", and ${receipts} starts at a token for itself or for what it is derived from ("${orders}")`
    )
    const elsewhere = positionToken([{ topic: orders, partition: 7, position: 1 }])
    for (const text of [elsewhere, "p1.", "p1.W1", "p1.W10"])
      expect((await refusal(path(orders, `from=${text}`))).slice(0, 2), text).toEqual([400, "invalid_parameter"])
    expect(await refusal(path(orders, `waitFor=${token}`))).toEqual([
      400,
      "invalid_parameter",
      "a stream does not wait for a token, it starts at one",
      "send the token as from"
    ])
    expect((await refusal(`/v1/views/kept/changes?from=p1.W1`)).slice(0, 3)).toEqual([
      400,
      "invalid_parameter",
      "the parameter from is no token"
    ])
  })
}
