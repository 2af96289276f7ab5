// How stream time moves: at most to the time at which the log stored a record, by events that fail and duplicates as well, never back.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Agg, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import type { LogRecord } from "../../../src/log/log.ts"
import { MemoryEngine } from "../../../src/runner/in-memory.ts"
import { reachOf } from "../../../src/runner/stream-time.ts"

const minute = 60_000
const noon = Date.UTC(2026, 0, 1, 12)
const Measured = Event.make("measured", { id: Schema.String, at: Schema.Number, does: Schema.String })
const source = Topic.events("measured", { events: [Measured], key: () => "k", id: "id", eventTime: "at" })
const rows = ReadModel.table("rows", { primaryKey: ["id"], columns: { id: Schema.String, whole: Schema.Int } })
const counts = Window.tumbling("counts", {
  size: "1 minute",
  key: { place: Schema.String },
  aggregate: { n: Agg.count },
  grace: "5 minutes"
})
const projection = Projection.make({
  name: "measuring",
  version: 1,
  source,
  writes: [rows, counts],
  dedupe: { within: "10 minutes" },
  maxAhead: "1 hour",
  handle: ({ does, id }, out) => {
    if (does === "throw") throw new Error("it fails")
    if (does === "refused") out.upsert(rows, { id, whole: 0.5 }) // the column is a bigint
    out.add(counts, { place: "oslo", n: true })
  }
})

/** An event at minutes after noon; `arrived` later or earlier than noon by minutes, or `never` where the log does not say when. */
interface Given {
  readonly at: number
  readonly arrived?: number | "unknown"
  readonly does?: string
  readonly id?: string
  readonly value?: string
}
const recordOf = ({ arrived = 0, at, does = "", id, value }: Given, position: number): LogRecord => ({
  partition: 0,
  position,
  key: "k",
  value: value ?? JSON.stringify({ type: "measured", id: id ?? `e${position}`, at: noon + at * minute, does }),
  eventTime: noon + at * minute,
  appendedAt: arrived === "unknown" ? -1 : noon + arrived * minute,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: undefined,
  headers: {}
})
/** Processes the events in batches of so many, each by a runner of its own. */
const play = (given: ReadonlyArray<Given>, size = given.length) => {
  const records = given.map(recordOf)
  let engine = new MemoryEngine(projection)
  for (let at = 0; at < records.length; at += size) {
    engine = new MemoryEngine(projection, 1, engine.store)
    const batch = records.slice(at, at + size)
    Effect.runSync(engine.processBatch("measured", 0, { records: batch, next: at + batch.length }))
  }
  const { counts } = engine.rows() as { readonly counts: ReadonlyArray<{ n: number; window_start: number }> }
  const [claim] = engine.store.claims.values()
  return {
    streamTime: claim!.streamTime === undefined ? undefined : (claim!.streamTime - noon) / minute,
    late: engine.late().map((row) => ((row["window_start"] as number) - noon) / minute),
    counted: counts.reduce((sum, { n }) => sum + n, 0),
    parked: engine.deadLetters().map(({ error }) => error),
    own: (at: number) => counts.find(({ window_start: start }) => start === noon + at * minute)?.n
  }
}
const honest = [{ at: 0 }, { at: 1, arrived: 1 }, { at: 2, arrived: 2 }]

describe("an event reaches", () => {
  test("its own time, but at most the time at which the log stored it, in whole milliseconds", () => {
    expect(reachOf({ appendedAt: 100 }, 90)).toBe(90)
    expect(reachOf({ appendedAt: 100 }, 100)).toBe(100)
    expect(reachOf({ appendedAt: 100 }, 159)).toBe(100)
    expect(reachOf({ appendedAt: 100 }, -5.5)).toBe(-6)
    expect(reachOf({ appendedAt: 100 }, 90.9)).toBe(90)
  })
  test("its own time if the log does not know when it stored the record", () => {
    expect(reachOf({ appendedAt: -1 }, 159)).toBe(159)
    expect(reachOf({ appendedAt: 0 }, 159)).toBe(159)
    expect(reachOf({ appendedAt: NaN }, 159)).toBe(159)
  })
})

for (const size of [1, 2, 10]) {
  describe(`in batches of ${size}, a fast clock`, () => {
    test("59 minutes ahead makes no honest event late, and its event counts in its own window", () => {
      const { late, own, streamTime } = play([{ at: 59 }, ...honest], size)
      expect({ late, streamTime, own: own(59) }).toEqual({ late: [], streamTime: 2, own: 1 })
    })
    test("makes none late when its event fails, is refused by the store, or comes twice", () => {
      for (const does of ["throw", "refused"])
        expect(play([{ at: 59, does }, ...honest], size)).toMatchObject({ late: [], streamTime: 2, counted: 3 })
      const twice = [{ at: 59, id: "x" }, { at: 59, id: "x" }, ...honest]
      expect(play(twice, size)).toMatchObject({ late: [], streamTime: 2, counted: 4 })
    })
    test("sends an event that comes again after its window's time: it is a duplicate", () => {
      const again = [{ at: 30, id: "x" }, ...honest, { at: 30, id: "x", arrived: 3 }]
      expect(play(again, size)).toMatchObject({ counted: 4, parked: [] })
    })
  })
}

describe("stream time", () => {
  test("moves to event times that lie before the append times, as in history", () => {
    const history = [{ at: -9_000 }, { at: -8_000 }, { at: -8_999 }]
    expect(play(history)).toMatchObject({ streamTime: -8_000, late: [-8_999] })
  })
  test("moves by an event that fails, that the store refuses, and by a duplicate, so that later events are late", () => {
    for (const does of ["throw", "refused"])
      expect(play([{ at: -60 }, { at: -10, does }, { at: -50 }])).toMatchObject({ streamTime: -10, late: [-50] })
    const duplicate = [{ at: -60, id: "x" }, { at: -52, id: "x" }, { at: -60 }]
    expect(play(duplicate)).toMatchObject({ streamTime: -52, late: [-60] })
  })
  test("does not move by a record that cannot be decoded, or that is dated beyond maxAhead", () => {
    for (const odd of [{ at: -10, value: "{" }, { at: -10, value: "{}" }, { at: 61 }, { at: 1e9 }])
      expect(play([{ at: -60 }, odd, { at: -59 }])).toMatchObject({ streamTime: -59, late: [], counted: 2 })
  })
  test("moves to the event time where the log has no append time, and nothing is dated too far ahead then", () => {
    const unknown = [{ at: 0 }, { at: 600, arrived: "unknown" as const }, { at: 1 }]
    expect(play(unknown)).toMatchObject({ streamTime: 600, late: [1], parked: [] })
  })
  test("is whole where event times are not, in one batch and over several", () => {
    const fractions = [{ at: -10 }, { at: -5.00001 }, { at: -5 }]
    for (const size of [1, 3])
      expect(play(fractions, size)).toMatchObject({ streamTime: -5, late: [], counted: 3, parked: [] })
    expect(play([{ at: -10 }, { at: -1 / 7 }]).streamTime! * minute).toBe(Math.floor(-minute / 7))
  })
  test("never goes back", () => {
    expect(play([{ at: -10 }, { at: -60 }, { at: -11 }], 1)).toMatchObject({ streamTime: -10 })
    // the log's clock was set back
    expect(
      play(
        [
          { at: 30, arrived: 20 },
          { at: 30, arrived: 10 }
        ],
        1
      )
    ).toMatchObject({ streamTime: 20 })
  })
})
