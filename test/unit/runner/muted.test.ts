// A follower's batches have no messages: none is packed, and what is left out is counted.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { expect, test } from "vitest"
import { Agg, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { MemoryEngine } from "../../../src/runner/in-memory.ts"
import { MemoryStore } from "../../../src/runner/memory-store.ts"
import type { Changes } from "../../../src/runner/store.ts"

const visits = Topic.records("visits", { value: { user: Schema.String }, key: "user" })
const greetings = Topic.records("greetings", { value: { user: Schema.String }, key: "user" })
const last = ReadModel.table("last", { columns: { user: Schema.String }, primaryKey: ["user"] })
const hours = Window.tumbling("hours", {
  size: "1 hour",
  key: { user: Schema.String },
  aggregate: { n: Agg.count },
  publish: "hours.changed"
})
const visitors = Projection.make({
  name: "visitors",
  version: 1,
  source: visits,
  writes: [last, hours, greetings],
  failure: { deadLetterTopic: "visits.dead" },
  handle: ({ user }, out) => {
    if (user === "bad") throw new Error("bad visitor")
    out.upsert(last, { user })
    out.add(hours, { user, n: 1 })
    out.publish(greetings, { user })
    out.publish(greetings, { user })
  }
})
const commitsOf = (mode: "live" | "follower") => {
  const store = new MemoryStore(visitors, mode)
  const commits: Array<Changes> = []
  const { commit } = store.service
  Object.assign(store, {
    service: {
      ...store.service,
      commit: (...[projection, claim, changes]: Parameters<typeof commit>) => {
        commits.push(changes)
        return commit(projection, claim, changes)
      }
    }
  })
  const engine = new MemoryEngine(visitors, 1, store)
  Effect.runSync(engine.process([{ user: "ann" }, { user: "bad" }, { user: "bob" }]) as Effect.Effect<void>)
  return { store, rows: engine.rows(), changes: commits }
}

test("a follower writes the rows of live processing, packs no message, and counts those that it leaves out by topic", () => {
  const live = commitsOf("live")
  const follower = commitsOf("follower")
  expect(follower.rows).toEqual(live.rows)
  expect(live.store.outbox.length).toBe(7)
  expect(live.changes.every(({ muted }) => muted === undefined)).toBe(true)
  expect(follower.store.outbox).toEqual([])
  const [changes] = follower.changes
  expect(changes!.segments).toEqual([])
  expect(changes!.muted).toEqual({ greetings: 4, "visits.dead": 1 })
  for (const { deltas, isMuted } of changes!.windows) {
    expect(isMuted).toBe(true)
    expect(deltas.every(({ key }) => key === "")).toBe(true)
  }
})

test("a follower parks exactly the events whose messages live processing cannot publish", () => {
  const texts = ["fine", "ü", "", "a\u0000b", "\ud800", "__proto__", '"constructor"', String.raw`\u0000`]
  const notes = Topic.records("notes", {
    value: { user: Schema.String, text: Schema.String, n: Schema.Finite },
    key: "user"
  })
  const strange = Topic.records("strange", { value: { user: Schema.String, ["a\u0000"]: Schema.String }, key: "user" })
  const values: ReadonlyArray<readonly [Topic.Any, object]> = [
    ...texts.map((text) => [notes, { user: "ann", text, n: 1 }] as const),
    ...[NaN, Infinity, -0, 1e300].map((n) => [notes, { user: "ann", text: "", n }] as const),
    [notes, { user: "ann", text: 1, n: 1 }],
    [notes, { user: "ann", n: 1 }],
    [notes, { user: "a\u0000", text: "", n: 1 }],
    [strange, { user: "ann", ["a\u0000"]: "" }]
  ]
  const publisher = Projection.make({
    name: "publisher",
    version: 1,
    source: visits,
    writes: [notes, strange],
    handle: ({ user }, out) => {
      const [topic, value] = values[Number(user)]!
      out.publish(topic as typeof notes, value as never)
    }
  })
  const parkedBy = (mode: "live" | "follower") => {
    const engine = new MemoryEngine(publisher, 1, new MemoryStore(publisher, mode))
    Effect.runSync(engine.process(values.map((_, i) => ({ user: String(i) }))) as Effect.Effect<void>)
    return engine.deadLetters().map(({ message, position }) => [position, message])
  }
  expect(parkedBy("follower")).toEqual(parkedBy("live"))
  expect(parkedBy("live").map(([position]) => position)).toEqual([3, 4, 8, 9, 12, 13, 14, 15])
})
