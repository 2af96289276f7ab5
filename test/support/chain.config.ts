// A chain of three projections for tests of processes: scans by parcel are published by hub, then by kind, and counted by day after each step.
import * as Schema from "effect/Schema"
import { Agg, Application, Event, Projection, Topic, Window } from "../../src/index.ts"

export const Scanned = Event.make("scanned", {
  id: Schema.String,
  parcel: Schema.String,
  hub: Schema.String,
  kind: Schema.String,
  at: Schema.Int
})
export const scans = Topic.events("scans", {
  events: [Scanned],
  id: "id",
  key: "parcel",
  eventTime: "at",
  partitions: 4
})
const value = { id: Schema.String, hub: Schema.String, kind: Schema.String, at: Schema.Int }
export const byHub = Topic.records("by-hub", { value, id: "id", key: "hub", eventTime: "at", partitions: 3 })
export const byKind = Topic.records("by-kind", { value, id: "id", key: "kind", partitions: 2 })
const window = <const Name extends string>(name: Name) =>
  Window.tumbling(name, { size: "1 day", grace: "1 day", key: { hub: Schema.String }, aggregate: { n: Agg.count } })
const [hubs, kinds] = [window("hub_days"), window("kind_days")]

export const first = Projection.make({
  name: "first",
  version: 1,
  source: scans,
  dedupe: { within: "1 day" },
  writes: [byHub],
  handle: ({ at, hub, id, kind }, out) => {
    if (kind !== "dropped") out.publish(byHub, { at, hub, id, kind })
  }
})
export const second = Projection.make({
  name: "second",
  version: 1,
  source: byHub,
  writes: [byKind, hubs],
  handle: (one, out) => {
    out.add(hubs, { hub: one.hub, n: true })
    out.publish(byKind, one)
  }
})
export const third = Projection.make({
  name: "third",
  version: 1,
  source: byKind,
  writes: [kinds],
  handle: ({ hub }, out) => out.add(kinds, { hub, n: true })
})
export default Application.make({
  name: "chain",
  projections: [Projection.async(first), Projection.async(second), Projection.async(third)]
})

const day = 86_400_000
/** Scans over some days, most of them in few partitions, in the order of their times. */
export const scansOf = (count: number, days: number): ReadonlyArray<(typeof Scanned)["Event"]> =>
  Array.from({ length: count }, (_, i) => ({
    type: "scanned",
    id: `s-${i}`,
    parcel: i % 7 === 0 ? `p-${i}` : `p-${i % 3}`,
    hub: ["oslo", "lyon", "bari", "wien"][i % 4]!,
    kind: ["letter", "parcel", "dropped"][i % 3]!,
    at: Date.UTC(2026, 0, 1) + Math.floor((i * days * day) / count)
  }))
/** What each of the two windows must hold: `hub day n`, sorted. */
export const expectedRows = (given: ReadonlyArray<(typeof Scanned)["Event"]>): ReadonlyArray<string> => {
  const rows = new Map<string, number>()
  for (const { at, hub, kind } of given) {
    if (kind === "dropped") continue
    const key = `${hub} ${new Date(at).toISOString().slice(0, 10)}`
    rows.set(key, (rows.get(key) ?? 0) + 1)
  }
  return [...rows].map(([key, n]) => `${key} ${n}`).toSorted()
}
