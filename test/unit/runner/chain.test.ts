// Chains of projections: stream time over a derived topic is that of the slowest stream, so nothing is late that was in time, whatever the
// order in which partitions are processed, published and restarted.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Agg, Event, Projection, Topic, Window } from "../../../src/index.ts"
import { isTimeMark } from "../../../src/log/time-mark.ts"
import type { MemoryStore } from "../../../src/runner/memory-store.ts"
import { type ChainMutant, ChainSimulation } from "../../support/chain-simulation.ts"
import { randomOf, type Random, seed } from "../../support/random.ts"

const day = 86_400_000
const start = Date.UTC(2026, 0, 1)
const Scanned = Event.make("scanned", {
  parcel: Schema.String,
  hub: Schema.String,
  at: Schema.Int,
  kind: Schema.String
})
const scans = Topic.events("scans", { events: [Scanned], key: "parcel", eventTime: "at", partitions: 4 })
const value = { hub: Schema.String, parcel: Schema.String, at: Schema.Int, kind: Schema.String }
const byHub = Topic.records("by-hub", { value, key: "hub", eventTime: "at", partitions: 3 })
// without an event time of its own: that of the event
const byKind = Topic.records("by-kind", { value, key: "kind", partitions: 2 })
const windowOf = <const Name extends string>(name: Name) =>
  Window.tumbling(name, {
    size: "1 day",
    grace: "1 day",
    key: { hub: Schema.String },
    aggregate: { parcels: Agg.count }
  })
const [second, third] = [windowOf("second_days"), windowOf("third_days")]
const chain = [
  Projection.make({
    name: "first",
    version: 1,
    source: scans,
    writes: [byHub],
    handle: ({ at, hub, kind, parcel }, out) => {
      if (kind !== "dropped") out.publish(byHub, { at, hub, kind, parcel })
    }
  }),
  Projection.make({
    name: "second",
    version: 1,
    source: byHub,
    writes: [byKind, second],
    handle: (one, out) => {
      out.add(second, { hub: one.hub, parcels: true })
      out.publish(byKind, one)
    }
  }),
  Projection.make({
    name: "third",
    version: 1,
    source: byKind,
    writes: [third],
    handle: ({ hub }, out) => out.add(third, { hub, parcels: true })
  })
]
const partitions = { scans: 4, "by-hub": 3, "by-kind": 2 }
type Scan = (typeof Scanned)["Event"]

/** Scans over some days. Time within a partition goes back by less than the grace of the windows. */
const scansOf = (random: Random, count: number, days: number): ReadonlyArray<Scan> =>
  Array.from({ length: count }, (_, i) => ({
    type: "scanned",
    parcel: `p-${i}`,
    hub: random.pick(["oslo", "lyon", "bari", "wien"]),
    kind: random.pick(["letter", "parcel", "dropped"]),
    at: Math.floor(start + (i * days * day) / count - random.next() * 0.9 * day)
  }))
/** What windows must hold: each scan that is not dropped, once. */
const folded = (given: ReadonlyArray<Scan>) => {
  const rows = new Map<string, number>()
  for (const { at, hub, kind } of given) {
    if (kind === "dropped") continue
    const key = `${hub} ${Math.floor(at / day)}`
    rows.set(key, (rows.get(key) ?? 0) + 1)
  }
  return rows
}
const rowsOf = (store: MemoryStore, window: string) =>
  new Map(
    store.rows(window).map((row) => [`${String(row["hub"])} ${Number(row["window_start"]) / day}`, row["parcels"]])
  )
const lateOf = (simulation: ChainSimulation) =>
  [...simulation.stores].flatMap(([name, { late }]) =>
    late.map(({ at, position, window }) => `${name} ${at.topic}/${at.partition}:${position} ${window}`)
  )
const sorted = (rows: ReadonlyMap<string, unknown>) => [...rows].toSorted(([a], [b]) => (a < b ? -1 : 1))

const late = start + 1_000 * day
const simulationOf = (random: Random, mutant?: ChainMutant) =>
  new ChainSimulation(chain, partitions, random, { nowMs: late, mutant })
/** Appends scans while the chain runs, and lets it run to its end. */
const play = (random: Random, given: ReadonlyArray<Scan>, mutant?: ChainMutant) => {
  const simulation = simulationOf(random, mutant)
  Effect.runSync(
    Effect.gen(function* () {
      for (const scan of given) {
        simulation.append(scans, scan)
        if (random.chance(0.05)) yield* simulation.run(random.int(0, 3))
      }
      yield* simulation.settle()
    })
  )
  return simulation
}
/** One source partition after the other, each to its end. */
const inTurn = (random: Random, given: ReadonlyArray<Scan>, mutant?: ChainMutant) => {
  const simulation = simulationOf(random, mutant)
  const whole = new ChainSimulation(chain, partitions, random, { nowMs: start })
  for (const scan of given) whole.append(scans, scan)
  Effect.runSync(
    Effect.gen(function* () {
      for (const [partition, records] of whole.logs.get("scans")!.entries()) {
        for (const { position: _, partition: __, appendedAt: ___, ...record } of records)
          simulation.put("scans", partition, record)
        yield* simulation.settle()
      }
    })
  )
  return simulation
}
const assertWhole = (simulation: ChainSimulation, given: ReadonlyArray<Scan>) => {
  expect(lateOf(simulation)).toEqual([])
  expect(sorted(rowsOf(simulation.stores.get("second")!, "second_days"))).toEqual(sorted(folded(given)))
  expect(sorted(rowsOf(simulation.stores.get("third")!, "third_days"))).toEqual(sorted(folded(given)))
}

describe(`chains of three projections (seed ${seed})`, () => {
  test("equal an independent fold without a late event, in any order of steps", () => {
    const random = randomOf(seed)
    for (let round = 0; round < 25; round++) {
      const given = scansOf(random, random.int(20, 300), random.int(1, 60))
      assertWhole(play(random, given), given)
    }
  })
  test("lose nothing if the source's partitions come one after the other", () => {
    const random = randomOf(seed + 1)
    for (let round = 0; round < 10; round++) {
      const given = scansOf(random, random.int(50, 300), random.int(10, 60))
      assertWhole(inTurn(random, given), given)
    }
  })

  /** How many of some runs lose events without a protection. */
  const losses = (mutant: ChainMutant) => {
    const random = randomOf(seed + 2)
    let lost = 0
    for (let round = 0; round < 10; round++) {
      const given = scansOf(random, 200, 60)
      if (lateOf(inTurn(random, given, mutant)).length > 0) lost++
      if (lateOf(play(random, given, mutant)).length > 0) lost++
    }
    return lost
  }
  test("caught: the fastest stream counts instead of the slowest", () => expect(losses("maximum")).toBeGreaterThan(0))
  test("caught: streams that have announced nothing do not hold stream time", () =>
    expect(losses("silent streams do not count")).toBeGreaterThan(0))
  test("caught: time marks go out before the messages of their commit", () =>
    expect(losses("marks first")).toBeGreaterThan(0))
})

/** The stream times of a projection's partitions. */
const timesOf = (simulation: ChainSimulation, projection: string) =>
  [...simulation.stores.get(projection)!.claims.values()].map(({ streamTime }) => streamTime)

describe("a source that goes quiet", () => {
  const settled = (mutant?: ChainMutant) => {
    const simulation = simulationOf(randomOf(7), mutant)
    const times = [0, 0, 0, 0]
    for (let i = 0; i < 200; i++) {
      const at = start + i * 3_600_000
      // one scan of each partition is published, and all later ones are filtered out
      const scan = { type: "scanned" as const, parcel: `p-${i}`, hub: "oslo", kind: i < 20 ? "letter" : "dropped", at }
      simulation.append(scans, scan)
      const partition = simulation.logs.get("scans")!.findIndex((log) => log.at(-1)?.eventTime === at)
      times[partition] = at
    }
    Effect.runSync(simulation.settle())
    return { simulation, slowest: Math.min(...times) }
  }
  test("announces its time to every partition, also by events that publish nothing", () => {
    const { simulation, slowest } = settled()
    expect(timesOf(simulation, "second")).toEqual([slowest, slowest, slowest])
    expect(timesOf(simulation, "third")).toEqual([slowest, slowest])
    // once it has, nothing more is due
    const length = () => [...simulation.logs.values()].flat().reduce((sum, log) => sum + log.length, 0)
    const before = length()
    Effect.runSync(simulation.settle(0))
    expect(length()).toBe(before)
  })
  test("caught: without time marks its time stays behind", () => {
    const { simulation, slowest } = settled("no marks")
    for (const time of timesOf(simulation, "third")) expect(time ?? 0).toBeLessThan(slowest)
  })
  test("so that an event which really is late is late, and a replay decides the same", () => {
    const { simulation } = settled()
    simulation.append(scans, { type: "scanned", parcel: "p-1", hub: "oslo", kind: "letter", at: start })
    Effect.runSync(simulation.settle())
    const found = lateOf(simulation)
    expect(found.map((text) => text.replace(/\/.*/, ""))).toEqual(["second by-hub", "third by-kind"])
    for (const name of ["second", "third"]) {
      const { logs } = simulation
      const replay = new ChainSimulation(chain, partitions, randomOf(8), { nowMs: late, logs, runs: [name] })
      Effect.runSync(replay.settle())
      expect(lateOf(replay)).toEqual(found.filter((text) => text.startsWith(name)))
      expect(timesOf(replay, name)).toEqual(timesOf(simulation, name))
    }
  })
  test("marks reach no handler, and are no events", () => {
    const { simulation } = settled()
    const log = simulation.logs.get("by-hub")!.flat()
    expect(log.filter(isTimeMark).length).toBeGreaterThan(0)
    expect(log.filter((record) => !isTimeMark(record))).toHaveLength(20)
    expect(rowsOf(simulation.stores.get("second")!, "second_days")).toEqual(new Map([["oslo 20454", 20]]))
    for (const { deadLetters } of simulation.stores.values()) expect(deadLetters).toEqual([])
    for (const record of log.filter(isTimeMark)) expect([record.key, record.value]).toEqual([null, null])
  })
})

test("a fast clock upstream moves no reader's stream time beyond the time at which its event was stored", () => {
  const simulation = simulationOf(randomOf(9))
  simulation.nowMs = start
  for (let i = 0; i < 40; i++) {
    const at = i % 3 === 1 ? start + 59 * 60_000 : start - 60_000
    simulation.append(scans, { type: "scanned", parcel: `p-${i}`, hub: "oslo", kind: "letter", at })
  }
  // the derived topics are written a day later
  Effect.runSync(Effect.sync(() => (simulation.nowMs = start + day)))
  Effect.runSync(simulation.settle())
  for (const name of ["second", "third"])
    for (const time of timesOf(simulation, name)) expect(time).toBeLessThanOrEqual(start)
  expect(lateOf(simulation)).toEqual([])
})

describe("windows that publish", () => {
  const perHour = Topic.records("per-hour", {
    value: { hub: Schema.String, window_start: Schema.Int, parcels: Schema.Int },
    key: "hub",
    eventTime: "window_start",
    partitions: 2
  })
  const hours = Window.tumbling("hours", {
    size: "1 hour",
    grace: "1 hour",
    key: { hub: Schema.String },
    aggregate: { parcels: Agg.count },
    publish: perHour
  })
  const byHour = Window.tumbling("by_hour", {
    size: "1 hour",
    grace: "1 hour",
    key: { hub: Schema.String },
    aggregate: { updates: Agg.count }
  })
  const hubs = Topic.events("hubs", { events: [Scanned], key: "hub", eventTime: "at", partitions: 4 })
  const projections = [
    Projection.make({
      name: "hourly",
      version: 1,
      source: hubs,
      writes: [hours],
      handle: ({ hub }, out) => out.add(hours, { hub, parcels: true })
    }),
    Projection.make({
      name: "again",
      version: 1,
      source: perHour,
      writes: [byHour],
      handle: ({ hub }, out) => out.add(byHour, { hub, updates: true })
    })
  ]
  test("make no update late downstream, although a batch publishes them by key and not by time", () => {
    const random = randomOf(seed + 3)
    for (let round = 0; round < 10; round++) {
      const counts = { hubs: 4, "per-hour": 2 }
      const simulation = new ChainSimulation(projections, counts, random, { nowMs: late })
      for (let i = 0; i < 300; i++) {
        const at = start + i * 600_000
        simulation.append(hubs, { type: "scanned", parcel: "p", hub: `h-${random.int(0, 9)}`, kind: "letter", at })
      }
      Effect.runSync(simulation.settle())
      expect(lateOf(simulation)).toEqual([])
    }
  })
})

test("a derived topic whose event times lie before those of its events makes nothing late, after a restart either", () => {
  const Delivered = Event.make("delivered", { order: Schema.String, at: Schema.Int, ordered: Schema.Int })
  const deliveries = Topic.events("deliveries", { events: [Delivered], key: "order", eventTime: "at", partitions: 2 })
  const orders = Topic.records("orders", {
    value: { order: Schema.String, ordered: Schema.Int },
    key: "order",
    eventTime: "ordered",
    partitions: 2
  })
  const daily = Window.tumbling("daily", { size: "1 day", grace: "1 hour", key: {}, aggregate: { n: Agg.count } })
  const projections = [
    Projection.make({
      name: "delivered",
      version: 1,
      source: deliveries,
      writes: [orders],
      handle: ({ order, ordered }, out) => out.publish(orders, { order, ordered })
    }),
    Projection.make({
      name: "counted",
      version: 1,
      source: orders,
      writes: [daily],
      handle: (_, out) => out.add(daily, { n: true })
    })
  ]
  const counts = { deliveries: 2, orders: 2 }
  const simulation = new ChainSimulation(projections, counts, randomOf(seed + 4), { nowMs: late })
  for (let i = 0; i < 100; i++) {
    const at = start + i * 3_600_000
    simulation.append(deliveries, { type: "delivered", order: `o-${i}`, at, ordered: at - 10 * day })
    Effect.runSync(simulation.settle(0.3))
  }
  expect(lateOf(simulation)).toEqual([])
})
