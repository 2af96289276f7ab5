// Retried dead letters: as late as they were when they failed, so that retries give what a replay with the corrected handler gives.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import {
  discardRecord,
  isRetry,
  recordFromEnvelope,
  retriedBy,
  retryRecord,
  storedEnvelope
} from "../../../src/dead-letter/retry-record.ts"
import { Agg, Event, type FailurePolicy, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import type { LogRecord } from "../../../src/log/log.ts"
import { MemoryEngine } from "../../../src/runner/in-memory.ts"
import { randomOf, seed, type Random } from "../../support/random.ts"

const minute = 60_000
const noon = Date.UTC(2026, 0, 1, 12)
const Measured = Event.make("measured", {
  id: Schema.String,
  key: Schema.String,
  at: Schema.Int,
  n: Schema.Int,
  bad: Schema.String
})
const source = Topic.events("measured", { events: [Measured], key: "key", id: "id", eventTime: "at" })
const rows = ReadModel.table("rows", {
  primaryKey: ["id"],
  columns: { id: Schema.String, n: Schema.Int, stream: Schema.Int }
})
const of = {
  key: { key: Schema.String },
  aggregate: { n: Agg.count, sum: Agg.sum, low: Agg.min, high: Agg.max },
  grace: "2 minutes"
} as const
const fixed = Window.tumbling("fixed", { ...of, size: ["1 minute", "7 minutes"] })
const hopping = Window.hopping("hopping", { ...of, size: "6 minutes", every: "2 minutes" })
const days = Window.calendar("days", { ...of, unit: "day", timeZone: "Antarctica/Casey" })
const ever = Window.global("ever", { ...of, grace: 0 })

/** A projection whose handler fails at events that say so, until `state.isFixed`. */
const projectionOf = (
  state: { isFixed: boolean },
  more: { readonly failure?: FailurePolicy; readonly within?: string }
) =>
  Projection.make({
    name: "measuring",
    version: 1,
    source,
    writes: [rows, fixed, hopping, days, ever],
    ...(more.within !== undefined && { dedupe: { within: more.within as "1 hour" } }),
    ...(more.failure !== undefined && { failure: more.failure }),
    handle: ({ at, bad, id, key, n }, out, { meta }) => {
      const fails = bad !== "" && !state.isFixed
      const contribution = { key, n: 1, sum: n, low: n, high: at }
      out.add(fixed, contribution)
      if (fails && bad === "throw") throw new Error("not yet")
      // the first is refused before the store sees it, the second by the store: the column is a bigint
      if (fails && bad === "unstorable") out.add(ever, { ...contribution, sum: NaN })
      out.upsert(rows, { id, n: fails && bad === "refused" ? 0.5 : n, stream: meta.streamTime })
      for (const window of [hopping, days, ever]) out.add(window, contribution)
    }
  })
interface Given {
  readonly at: number
  readonly key?: string
  readonly bad?: string
  readonly id?: string
  readonly value?: string
  readonly appendedAt?: number
}
const recordOf = ({ appendedAt, at, bad = "", id, key = "k", value }: Given, position: number): LogRecord => {
  const event = { type: "measured", id: id ?? `e${position}`, key, at: noon + at * minute, n: position % 7, bad }
  return {
    partition: 0,
    position,
    key,
    value: value ?? JSON.stringify(event),
    eventTime: event.at,
    appendedAt: noon + (appendedAt ?? 1_000_000) * minute,
    eventId: undefined,
    tenant: undefined,
    traceparent: undefined,
    schemaVersion: undefined,
    headers: {}
  }
}
type Engine = MemoryEngine<never, never, never>
const run = (engine: Engine, records: ReadonlyArray<LogRecord>) =>
  records.length === 0
    ? undefined
    : Effect.runSync(
        engine.processBatch("measured", 0, { records, next: records.at(-1)!.position + 1 }) as Effect.Effect<void>
      )
const enginesOf = (more: Parameters<typeof projectionOf>[1], state = { isFixed: false }) => {
  const projection = projectionOf(state, more)
  let engine: Engine = new MemoryEngine(projection as never)
  return {
    state,
    /** A runner of its own over what the one before stored. */
    next: () => (engine = new MemoryEngine(projection as never, 1, engine.store)),
    engine: () => engine
  }
}
/** Retry records for the open dead letters, at the end of the log. */
const retriesOf = (engine: Engine, position: number) =>
  engine.store.deadLetters
    .filter(({ status }) => status === "parked")
    .map((deadLetter, i): LogRecord => {
      const record = recordFromEnvelope(deadLetter.envelope!, 0, deadLetter.value)
      const retry = retryRecord(record, "measuring", deadLetter.position)
      return Object.assign(retry, { position: position + i, appendedAt: noon + 2_000_000 * minute })
    })
const sorted = (all: ReadonlyArray<object>) => all.map((row) => JSON.stringify(row)).toSorted()
const lateText = ({ position, size, start, streamTime, window }: Engine["store"]["late"][number]) =>
  `${position} ${window} ${size} ${start} by ${streamTime}`
/** What readers see, without an order. */
const outcome = (engine: Engine) => ({
  rows: Object.fromEntries(Object.entries(engine.rows()).map(([name, all]) => [name, sorted(all)])),
  late: engine.store.late.map(lateText).toSorted(),
  streamTime: [...engine.store.claims.values()].map(({ streamTime }) => streamTime)
})
const replay = (records: ReadonlyArray<LogRecord>, more: Parameters<typeof projectionOf>[1]) => {
  const engine = enginesOf(more, { isFixed: true }).next()
  run(engine, records)
  return engine
}

describe("a dead letter that is retried after its windows have closed", () => {
  for (const bad of ["throw", "unstorable", "refused"]) {
    test(`counts where a replay counts it, and moves no stream time: ${bad}`, () => {
      const records = [{ at: 0 }, { at: 0, bad }, { at: 30 }, { at: 25 }].map(recordOf)
      const { next, state } = enginesOf({})
      run(next(), records)
      state.isFixed = true
      const engine = next()
      run(engine, retriesOf(engine, 4))
      expect(engine.store.deadLetters.map(({ status }) => status)).toEqual(["retried"])
      expect(outcome(engine)).toEqual(outcome(replay(records, {})))
      // the event of minute 25 was late, the retried one was not
      expect(new Set(engine.store.late.map(({ position }) => position))).toEqual(new Set([3]))
    })
  }
  test("is late if it was late when it failed, and its late contributions say by which stream time", () => {
    const records = [{ at: 30 }, { at: 0, bad: "throw" }, { at: 60 }].map(recordOf)
    const { next, state } = enginesOf({})
    run(next(), records)
    state.isFixed = true
    const engine = next()
    run(engine, retriesOf(engine, 3))
    expect(outcome(engine)).toEqual(outcome(replay(records, {})))
    expect(new Set(engine.store.late.map(({ position, streamTime }) => `${position} ${streamTime}`))).toEqual(
      new Set([`1 ${noon + 30 * minute}`])
    )
  })
  test("keeps its stream time when the retry fails and is retried once more", () => {
    const records = [{ at: 0 }, { at: 0, bad: "throw" }, { at: 30 }].map(recordOf)
    const { next, state } = enginesOf({})
    run(next(), records)
    const engine = next()
    run(engine, retriesOf(engine, 3))
    run(engine, [recordOf({ at: 90 }, 4)])
    state.isFixed = true
    run(engine, retriesOf(engine, 5))
    expect(outcome(engine)).toEqual(outcome(replay([...records, recordOf({ at: 90 }, 4)], {})))
    expect(engine.store.deadLetters).toMatchObject([{ status: "retried", attempts: 3 }])
  })
  test("was parked behind an earlier one of its key: each is judged by its own position", () => {
    const more = { failure: { order: "key" } } as const
    const records = [{ at: 0, bad: "throw" }, { at: 1 }, { at: 30, key: "other" }, { at: 2 }, { at: 31 }].map(recordOf)
    const { next, state } = enginesOf(more)
    run(next(), records)
    state.isFixed = true
    const engine = next()
    run(engine, retriesOf(engine, 5).slice(0, 1))
    expect(engine.store.deadLetters.map(({ status }) => status)).toEqual(Array(4).fill("retried"))
    expect(outcome(engine)).toEqual(outcome(replay(records, more)))
    expect(new Set(engine.store.late.map(({ position }) => position))).toEqual(new Set([3]))
  })
  test("failed for a reason of its own, and an earlier one of its key is open: it is parked behind that one, and follows it", () => {
    const records = [{ at: 0, bad: "throw" }, { at: 1, value: "{" }, { at: 2 }].map(recordOf)
    const { next, state } = enginesOf({ failure: { order: "key" } })
    run(next(), records)
    state.isFixed = true
    const engine = next()
    const lettersOf = () =>
      engine.store.deadLetters.map(({ attempts, error, retriedPosition, status }) => [
        status,
        error,
        attempts,
        retriedPosition
      ])
    const [first, second, third] = lettersOf()
    const [byFirst, bySecond] = retriesOf(engine, 3)
    run(engine, [{ ...bySecond!, position: 3 }])
    expect(lettersOf()).toEqual([first, ["parked", "EarlierParked", second![2], 3], third])
    run(engine, [{ ...byFirst!, position: 4 }])
    const [retried, failed, behind] = lettersOf()
    expect(retried![0]).toBe("retried")
    expect(failed).toEqual(["parked", second![1], (second![2] as number) + 1, 4])
    expect(behind).toEqual(third)
  })
  test("could not be read: it has the stream time of its position once it can", () => {
    const broken = [{ at: 0 }, { at: 0, value: "{" }, { at: 30 }].map(recordOf)
    const { next } = enginesOf({})
    run(next(), broken)
    const engine = next()
    const stored = engine.store.deadLetters[0]!
    expect(stored.streamTime).toBe(noon)
    // as if an upcaster had been corrected: the value can be read now
    engine.store.deadLetters[0] = { ...stored, value: recordOf({ at: 0 }, 1).value }
    run(engine, retriesOf(engine, 3))
    expect(engine.store.late).toEqual([])
    expect(engine.rows()["ever"]).toMatchObject([{ n: 3 }])
  })
  test("was the first of its partition, and could not be read: nothing had closed", () => {
    const { next } = enginesOf({})
    run(next(), [{ at: 0, value: "{" }, { at: 30 }].map(recordOf))
    const engine = next()
    engine.store.deadLetters[0] = { ...engine.store.deadLetters[0]!, value: recordOf({ at: 0 }, 0).value }
    run(engine, retriesOf(engine, 2))
    expect(engine.store.late).toEqual([])
    expect(engine.rows()["rows"]).toMatchObject([{ stream: noon + 30 * minute }, { stream: noon }])
  })
  test("was stored before stream times were kept: it is judged by the stream time of the retry", () => {
    const { next, state } = enginesOf({})
    run(next(), [{ at: 0, bad: "throw" }, { at: 30 }].map(recordOf))
    state.isFixed = true
    const engine = next()
    const { streamTime: _, ...before } = engine.store.deadLetters[0]!
    engine.store.deadLetters[0] = before
    run(engine, retriesOf(engine, 2))
    expect(new Set(engine.store.late.map(({ streamTime }) => streamTime))).toEqual(new Set([noon + 30 * minute]))
  })
  test("is a duplicate of an event that came between, which has its id", () => {
    const more = { within: "1 hour" }
    const records = [{ at: 0, id: "x", bad: "throw" }, { at: 0, id: "x" }, { at: 30 }].map(recordOf)
    const { next, state } = enginesOf(more)
    run(next(), records)
    state.isFixed = true
    const engine = next()
    run(engine, retriesOf(engine, 3))
    expect(engine.rows()["ever"]).toMatchObject([{ n: 2 }])
    expect(outcome(engine).late).toEqual(outcome(replay(records, more)).late)
  })
})

test("a retry schedule with a delay without an end fails the event, and does not stop its partition", () => {
  const waiting = Projection.make({
    name: "waiting",
    version: 1,
    source,
    writes: [rows],
    failure: { retry: Schedule.spaced("Infinity") },
    handle: ({ id, n }, out) => (n === 0 ? Effect.fail(new Error("no")) : out.upsert(rows, { id, n, stream: 0 }))
  })
  const engine: Engine = new MemoryEngine(waiting as never)
  run(engine, [{ at: 0 }, { at: 1 }].map(recordOf))
  expect(engine.deadLetters()).toMatchObject([
    {
      error: "InvalidOption",
      message:
        "projection waiting: a delay of failure.retry is Infinity; its partition would wait for ever; make it finite"
    }
  ])
  expect(engine.rows()["rows"]).toMatchObject([{ id: "e1" }])
})

/** Random events, some of which fail; batches of any size; retries in between and at the end. Then everything is as in a replay. */
const play = (random: Random) => {
  const more = {
    ...(random.chance(0.5) && { failure: { order: "key" } as const }),
    ...(random.chance(0.5) && { within: random.pick(["1 minute", "1 hour"]) })
  }
  const records = Array.from({ length: random.int(10, 60) }, (_, i) =>
    recordOf(
      {
        at: i * random.pick([0.1, 1]) - (random.chance(0.2) ? random.int(0, 12) : 0) + (random.chance(0.1) ? 40 : 0),
        appendedAt: i,
        key: random.pick(["a", "b", "c"]),
        bad: random.chance(0.3) ? random.pick(["throw", "unstorable", "refused"]) : "",
        ...(random.chance(0.05) && { value: "{" })
      },
      i * 10
    )
  )
  const { next, state } = enginesOf(more)
  let engine = next()
  for (let from = 0; from < records.length;) {
    const size = random.int(1, 20)
    run(engine, records.slice(from, from + size))
    from += size
    if (random.chance(0.3)) engine = next()
    // a retry that fails again, between batches
    if (random.chance(0.3))
      run(engine, retriesOf(engine, records[Math.min(from, records.length) - 1]!.position + 1).slice(0, 9))
  }
  const later = recordOf({ at: 500, appendedAt: 500 }, 10_000)
  run(engine, [later])
  state.isFixed = true
  engine = next()
  // one that is behind another of its key is retried with that one
  for (
    let position = 10_001;
    engine.store.deadLetters.some(({ attempts, status }) => status === "parked" && attempts < 50);
  ) {
    const retries = retriesOf(engine, position).filter(({ value }) => value !== "{")
    if (retries.length === 0) break
    run(engine, random.chance(0.5) ? retries : retries.slice(0, 1))
    position += retries.length
    const unreadable = engine.store.deadLetters.some(({ status, value }) => status === "parked" && value === "{")
    if (unreadable && more.failure !== undefined) return undefined // what waits behind it stays parked
  }
  return { engine, expected: replay([...records, later], more) }
}
test(`retries give what a replay with the corrected handler gives, for random programs, seed ${seed}`, () => {
  const random = randomOf(seed)
  let [compared, late, retried] = [0, 0, 0]
  for (let i = 0; i < 150; i++) {
    const played = play(random)
    if (played === undefined) continue
    expect(outcome(played.engine), `run ${i}`).toEqual(outcome(played.expected))
    compared++
    late += played.engine.store.late.length
    retried += played.engine.store.deadLetters.filter(({ status }) => status === "retried").length
  }
  expect(compared).toBeGreaterThan(50)
  expect(late).toBeGreaterThan(100)
  expect(retried).toBeGreaterThan(200)
})

describe("a retry record that counts for some builds", () => {
  const [poison] = [{ at: 0, bad: "throw" }].map(recordOf)
  const builds = { build: 2, next: 4 }
  const retry = Object.assign(retryRecord(poison!, "measuring", 0, undefined, builds), {
    position: 1,
    appendedAt: noon
  }) as LogRecord
  test("is for its build and those that are made later, and other readers skip it", () => {
    expect([1, 2, 3, 4, 9].map((version) => retriedBy(retry, { projection: "measuring", version }))).toEqual([
      undefined,
      0,
      undefined,
      0,
      0
    ])
    expect(isRetry(retry)).toBe(true)
    expect(recordFromEnvelope(storedEnvelope(retry), 0, retry.value).headers).toEqual({})
  })
  test("leaves the dead letter of another build at the same position as it is, discarded or retried", () => {
    const discard = discardRecord(poison!, "measuring", 0, undefined, builds)
    for (const record of [retry, Object.assign(discard, { position: 1, appendedAt: noon }) as LogRecord]) {
      const { next, state } = enginesOf({})
      run(next(), [poison!])
      state.isFixed = true
      const engine = next()
      run(engine, [record])
      expect(engine.store.deadLetters.map(({ status }) => status)).toEqual(["parked"])
    }
  })
})
