// Clients that follow tables while their projections are rebuilt, promoted, rolled back and retired, of an async and of an inline projection, by both kinds of streams.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest"
import { Aggregate, Application, Event, Projection, ReadModel, Topic } from "../../../src/index.ts"
import { followView, type Row } from "../../support/follow.ts"
import { json } from "../../support/http.ts"
import { serveSystem } from "../../support/served-system.ts"
import { webSocket } from "../../support/websocket.ts"

const Moved = Event.make("moved", { id: Schema.String, n: Schema.Int })
const moves = Topic.events("moves", { events: [Moved], id: "id", key: "id", partitions: 2 })
const seen = ReadModel.table("seen", { columns: { id: Schema.String, n: Schema.Int }, primaryKey: ["id"] })
const watching = Projection.make({
  name: "watching",
  version: 1,
  source: moves,
  writes: [seen],
  handle: ({ id, n }, out) => out.upsert(seen, { id, n })
})
const Added = Event.make("added", { cart: Schema.String, n: Schema.Int })
const Cart = Aggregate.make({
  name: "cart",
  id: "cart",
  partitions: 2,
  events: [Added],
  commands: { add: { cart: Schema.String, n: Schema.Int } },
  state: Schema.Struct({ n: Schema.Finite }),
  initial: { n: 0 },
  evolve: { added: (_, { n }) => ({ n }) },
  decide: { add: (_, { cart, n }) => Added.make({ cart, n }) }
})
const carts = ReadModel.table("carts", { columns: { id: Schema.String, n: Schema.Int }, primaryKey: ["id"] })
const shelf = Projection.make({
  name: "shelf",
  version: 1,
  source: Cart,
  writes: [carts],
  handle: ({ cart, n }, out) => out.upsert(carts, { id: cart, n })
})
const application = Application.make({
  name: "followed",
  aggregates: [Cart],
  projections: [Projection.async(watching), Projection.inline(shelf)]
})

const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
let url: string
beforeAll(async () => {
  ;({ url } = await run(serveSystem(application, { limits: { heartbeatMs: 100 } })))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const post = async (path: string, body: unknown) => {
  const response = await fetch(`${url}${path}`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": json }
  })
  // oxlint-disable-next-line typescript/no-explicit-any -- each route answers with another shape
  const answer = (await response.json()) as any
  return { status: response.status, answer, location: response.headers.get("location") }
}
/** Runs an operation to its end. */
const operate = async (path: string, body: unknown = {}) => {
  const { answer, location, status } = await post(`/v1/operations/projections/${path}`, body)
  let job = answer
  if (status >= 300) throw new Error(`${path}: ${JSON.stringify(job)}`)
  while (job.state === "running") {
    await new Promise((done) => setTimeout(done, 30))
    job = await (await fetch(`${url}${location}`)).json()
  }
  if (job.error != null) throw new Error(`${path}: ${JSON.stringify(job)}`)
  return job
}
const rowsOf = async (view: string): Promise<ReadonlyArray<Row>> =>
  ((await (await fetch(`${url}/v1/views/${view}?limit=1000`)).json()) as { readonly rows: ReadonlyArray<Row> }).rows

let n = 0
const cases = [
  { view: "seen", projection: "watching", write: (id: string) => post("/v1/events", { type: "moved", id, n: ++n }) },
  {
    view: "carts",
    projection: "shelf",
    write: (id: string) => post(`/v1/aggregates/cart/${id}/commands/add`, { n: ++n })
  }
] as const

test.each(cases)(
  "a follower of $view sees nothing of a rebuild, gets all rows again at a promotion and a rollback, and each change between once",
  async ({ projection, view, write }) => {
    for (let i = 0; i < 5; i++) expect((await write(`k${i}`)).status).toBeLessThan(300)
    await expect.poll(async () => (await rowsOf(view)).length, { timeout: 20_000 }).toBe(5)
    const follower = followView(() => `${url}/v1/views/${view}/changes`)
    const ends: Array<string | undefined> = []
    const running = { isDone: false, isWriting: true }
    onTestFinished(() => void Object.assign(running, { isDone: true, isWriting: false }))
    // as a client does: it connects again with its last id whenever the server ends its stream
    const following = (async () => {
      while (!running.isDone) ends.push(await follower.run(Infinity, () => running.isDone))
    })()
    const isUpToDate = async () => {
      const rows = await rowsOf(view)
      const own = rows.map(({ id }) => follower.rows.get(String(id)))
      return follower.isLive() && follower.rows.size === rows.length && JSON.stringify(own) === JSON.stringify(rows)
    }
    const settled = () => expect.poll(isUpToDate, { timeout: 20_000 }).toBe(true)
    const starts = () => follower.got.flatMap(({ data, event }) => (event === "snapshot" ? [data["reason"]] : []))
    await settled()
    const socket = await webSocket(`${url}/v1/views/${view}/changes?from=latest`)

    const writing = (async () => {
      for (let i = 0; running.isWriting; i++) {
        await write(`k${i % 7}`)
        await new Promise((done) => setTimeout(done, 5))
      }
    })()
    await operate(`${projection}/rebuild`)
    expect(starts()).toEqual(["start"])

    await operate(`${projection}/promote`)
    expect(await socket.closed()).toEqual({ code: 4003, reason: "view_replaced" })
    await expect.poll(starts, { timeout: 20_000 }).toEqual(["start", "view_replaced"])
    await operate(`${projection}/promote`, { rollback: true })
    await expect.poll(starts, { timeout: 20_000 }).toEqual(["start", "view_replaced", "view_replaced"])
    await operate(`${projection}/promote`, { build: 2 })
    await expect.poll(() => starts().length, { timeout: 20_000 }).toBe(4)
    running.isWriting = false
    await writing
    await settled()
    // the build that is not shown goes away
    await operate(`${projection}/retire`, { build: 1 })
    expect((await write("after")).status).toBeLessThan(300)
    await expect.poll(() => follower.rows.get("after"), { timeout: 20_000 }).toMatchObject({ n })
    expect(starts()).toEqual(["start", "view_replaced", "view_replaced", "view_replaced"])
    expect(ends.filter((end) => end !== "view_replaced" && end !== "refused")).toEqual([])
    expect(follower.faults).toEqual([])
    // the changes of a key rise, also where rows came again
    const last = new Map<string, number>()
    for (const { data, event } of follower.got)
      if (event === "upsert") {
        expect(Number(data["n"]), String(data["id"])).toBeGreaterThanOrEqual(last.get(String(data["id"])) ?? 0)
        last.set(String(data["id"]), Number(data["n"]))
      }
    running.isDone = true
    await write("end")
    await following
  },
  90_000
)
