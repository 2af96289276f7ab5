// A sample of what a handler records: what it takes, what it leaves out, and what it notices later.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Agg, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import type { Entries } from "../../../src/model/recorder.ts"
import { BehaviourSampler, behaviourOf, sampleSize, type SampledEvent } from "../../../src/runner/behaviour.ts"
import { HandlerCaller } from "../../../src/runner/handler-caller.ts"

const Paid = Event.make("paid", { id: Schema.String, n: Schema.Finite, note: Schema.optionalKey(Schema.String) })
const Seen = Event.make("seen", { id: Schema.String, n: Schema.Finite, note: Schema.optionalKey(Schema.String) })
const source = Topic.events("s", { events: [Paid, Seen], key: "id" })
const rates = Topic.compacted("rates", { value: { id: Schema.String, rate: Schema.Finite }, key: "id" })
const table = ReadModel.table("t", { columns: { id: Schema.String, n: Schema.Finite }, primaryKey: ["id"] })
const totals = Window.global("w", { key: { id: Schema.String }, aggregate: { n: Agg.sum } })
interface Context {
  readonly rates: { readonly rate: number }
  readonly meta: { readonly eventTime: number }
  readonly replaying: boolean
}
type Out = Readonly<Record<"upsert" | "modify" | "add", (...args: ReadonlyArray<unknown>) => void>>
type Handle = (event: { id: string; n: number; type: string }, out: Out, context: Context) => unknown
const projectionOf = (handle: Handle) =>
  Projection.make({
    name: "p",
    version: 1,
    source,
    enrich: { rates },
    writes: [table, totals],
    handle: handle as never
  }) as Projection.Any
const metaOf = (position: number) => ({
  topic: "s",
  partition: 0,
  position,
  key: "k",
  eventTime: 1,
  streamTime: 1,
  tenant: undefined,
  traceId: undefined,
  traceparent: undefined,
  erased: false,
  reached: undefined
})
const rate = { id: "k", rate: 2 }
/** Handles events as the runner does, and returns what a sampler takes of them. */
const sampled = (projection: Projection.Any, types: ReadonlyArray<string>, more: object = {}) => {
  const sampler = new BehaviourSampler(projection, [])
  const log: Entries = ["upsert", table, { id: "an event before" }]
  const caller = new HandlerCaller(projection, log, false, new Map([[projection, sampler]]))
  for (const [i, type] of types.entries()) caller.call({ type, id: `${i}`, n: i, ...more }, metaOf(i), [rate])
  // as it comes back from the database
  return JSON.parse(JSON.stringify(sampler.take())) as ReadonlyArray<SampledEvent>
}
const many = (type: string, count: number) => Array.from({ length: count }, () => type)
const differing = (projection: Projection.Any, sample: ReadonlyArray<SampledEvent>) =>
  sample.filter((event) => behaviourOf(projection, event) !== event.recorded).map(({ meta }) => meta.position)

describe("a sample of a handler's behaviour", () => {
  let limit = 5
  const handle: Handle = ({ id, n }, out, { rates: found, meta }) => {
    if (n > limit) out.upsert(table, { id, n: n * found.rate + meta.eventTime })
    else out.modify(table, { id }, (row: unknown) => row ?? { id, n: limit })
    out.add(totals, { id, n })
  }
  test("has some events of each type, and notices a constant that the handler uses, for the events that it decides", () => {
    limit = 5
    const projection = projectionOf(handle)
    const sample = sampled(projection, [...many("paid", 80), ...many("seen", 30)])
    expect(sample.map(({ type }) => type)).toEqual([...many("paid", sampleSize / 2), ...many("seen", 30)])
    expect(differing(projection, sample)).toEqual([])
    limit = 7
    expect(differing(projection, sample)).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
    expect(
      differing(
        projectionOf(() => {}),
        sample
      )
    ).toHaveLength(80)
  })
  test("leaves out what uses chance or state, what throws, long values, and Effects, which never run", () => {
    let runs = 0
    expect(
      sampled(
        projectionOf(({ id }, out) => out.upsert(table, { id, n: Math.random() })),
        many("paid", 9)
      )
    ).toEqual([])
    expect(
      sampled(
        projectionOf(({ id }, out) => out.upsert(table, { id, n: runs++ })),
        many("paid", 9)
      )
    ).toEqual([])
    const throws = projectionOf(() => {
      throw new Error("no")
    })
    expect(sampled(throws, many("paid", 9))).toEqual([])
    expect(sampled(projectionOf(handle), many("paid", 9), { note: "x".repeat(5_000) })).toEqual([])
    let effects = 0
    const effect = projectionOf(() => Effect.sync(() => void effects++))
    expect(sampled(effect, many("paid", 2_000))).toEqual([])
    expect(effects).toBe(0)
  })
  test("runs the handler as if it were replayed, and survives whatever it does then", () => {
    const sample = sampled(projectionOf(handle), many("paid", 3))
    const seen: Array<unknown> = []
    const strange = projectionOf((_, out, { replaying }) => {
      seen.push(replaying)
      out.upsert(table, { self: out })
    })
    expect(differing(strange, sample)).toEqual([0, 1, 2])
    expect(seen).toEqual([true, true, true])
    const broken = sample.map((event) => Object.assign({}, event, { value: "{", lookups: [] }))
    expect(differing(projectionOf(handle), broken)).toEqual([0, 1, 2])
  })
  test("is completed, and not begun again, after a restart", () => {
    const projection = projectionOf(handle)
    const known = sampled(projection, many("paid", 80))
    const sampler = new BehaviourSampler(projection, known)
    expect(sampler.begin({ type: "paid", id: "x", n: 1 }, metaOf(1), [rate])).toBeUndefined()
    expect(sampler.begin({ type: "seen", id: "x", n: 1 }, metaOf(1), [rate])).toBeDefined()
    expect(new BehaviourSampler(projection, [...known, ...known]).isOpen).toBe(false)
  })
})
