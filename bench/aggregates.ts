// The event store beside Emmett's, on one embedded PostgreSQL, in turn: appends a second on one stream and on 1,000, and loads, each with the processor
// time of this process and of the server in microseconds. With `--http`: how
// long a command over HTTP takes until its rows can be read; with `--http --pulsar`: also until a consumer of Pulsar has its event, over each transport.
// Uses the broker of MILLRACE_PULSAR_URL, or starts one.
import { loadavg } from "node:os"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { AlertCase, CaseOpened } from "../aggregates/alert-case.ts"
import { Aggregate } from "../src/aggregate/aggregate.ts"
import { EventStore, type NewEvent } from "../src/aggregate/event-store.ts"
import { shapeOf } from "../src/aggregate/state.ts"
import { connect, type Sql } from "../src/postgres/client/client.ts"
import * as PostgresEvents from "../src/postgres/events/events.ts"
import { databaseOn, server } from "../test/support/postgres.ts"
import { transports } from "../test/support/stack.ts"
import { measureHttp, measurePulsar } from "./aggregates-http.ts"
import { openEmmett, type EmmettStore } from "./emmett/emmett.ts"
import { median } from "./rounds.ts"
import { serverCpuSeconds } from "./system.ts"
import { services } from "./services.ts"

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "2" },
    runs: { type: "string", default: "3" },
    writers: { type: "string", default: "1,64,512" },
    loads: { type: "string", default: "10,1000,100000" },
    only: { type: "string" },
    http: { type: "boolean", default: false },
    pulsar: { type: "boolean", default: false },
    rate: { type: "string", default: "50" }
  }
})
const seconds = Number(values.seconds)
const runs = Number(values.runs)
const numbers = (text: string) => (text === "" ? [] : text.split(",").map(Number))

type Store = EventStore["Service"]
const data = { case_id: "c-123456", at: 1_700_000_000_000, entity_id: "entity-42", score: 912.5 }
const event: NewEvent = {
  type: "case.opened",
  value: AlertCase.stringify(CaseOpened.make(data))!,
  eventId: undefined,
  eventTime: data.at,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: 1,
  headers: {}
}
let made = 0
const append = (store: Store, stream: string) =>
  store.append({ aggregate: AlertCase.name, stream, expected: "any", events: [event] }, `c${made++}`)

/** A way to append one event. */
type Append = (stream: string) => Promise<unknown>
const waysOf = (store: Store, emmett: EmmettStore | undefined): Readonly<Record<string, Append>> => ({
  ...(emmett === undefined
    ? {}
    : { emmett: (stream) => emmett.appendToStream(stream, [{ type: event.type, data: { ...data } }]) }),
  millrace: (stream) => Effect.runPromise(append(store, stream)),
  execute: (stream) =>
    Effect.runPromise(
      Effect.provideService(
        // an escalation appends an event each time
        Aggregate.execute(AlertCase, stream, { type: "escalate", at: data.at }, { commandId: `x${made++}` }),
        EventStore,
        store
      )
    )
})
/** Processor time so far in microseconds, of this process and of the server. The server is counted in hundredths of a second. */
const cpuOf = async (sql: Sql) => {
  const { system, user } = process.cpuUsage()
  return { node: system + user, postgres: (await serverCpuSeconds(sql)) * 1e6 }
}
type Cpu = Awaited<ReturnType<typeof cpuOf>>
const cpuSince = async (sql: Sql, before: Cpu, times: number): Promise<Cpu> => {
  const { node, postgres } = await cpuOf(sql)
  return { node: (node - before.node) / times, postgres: (postgres - before.postgres) / times }
}
/** The medians of several runs by name, as `"98 + 239"`: node and PostgreSQL. */
const shownCpu = (found: ReadonlyMap<string, ReadonlyArray<{ readonly cpu: Cpu }>>) =>
  Object.fromEntries(
    [...found].map(([name, all]) => {
      const of = (part: keyof Cpu) => Math.round(median(all.map(({ cpu }) => cpu[part])))
      return [name, `${of("node")} + ${of("postgres")}`]
    })
  )
/** Appends a second by so many writers, and how many failed. */
const rateOf = async (sql: Sql, write: Append, writers: number, streamOf: (i: number) => string) => {
  const cpu = await cpuOf(sql)
  const began = performance.now()
  const end = began + seconds * 1_000
  let [appended, failed] = [0, 0]
  const writer = async (number: number) => {
    for (let i = number; performance.now() < end; i += writers) {
      try {
        await write(streamOf(i))
        appended++
      } catch {
        failed++
      }
    }
  }
  await Promise.all(Array.from({ length: writers }, (_, i) => writer(i)))
  const rate = Math.round((appended / (performance.now() - began)) * 1_000)
  return { rate, failed, cpu: await cpuSince(sql, cpu, appended) }
}

const measureAppends = Effect.fnUntraced(function* (sql: Sql, store: Store, emmett: EmmettStore | undefined) {
  const ways = waysOf(store, emmett)
  const figures: Record<string, object> = {}
  for (const streams of [1, 1_000])
    for (const writers of numbers(values.writers)) {
      const found = new Map<string, Array<Awaited<ReturnType<typeof rateOf>>>>()
      for (let run = 0; run < runs; run++)
        for (const [name, write] of Object.entries(ways)) {
          const prefix = `${name}${streams}x${writers}x${run}-`
          if (name === "execute")
            // they are open, so that each command appends
            yield* Effect.forEach(
              Array.from({ length: streams }, (_, i) => i),
              (i) => append(store, `${prefix}${i}`),
              { concurrency: "unbounded" }
            )
          const result = yield* Effect.promise(() => rateOf(sql, write, writers, (i) => `${prefix}${i % streams}`))
          found.set(name, [...(found.get(name) ?? []), result])
        }
      const rates = Object.fromEntries([...found].map(([name, all]) => [name, median(all.map(({ rate }) => rate))]))
      const { emmett: peer, millrace } = rates
      const times = peer === undefined ? {} : { ratio: Math.round((millrace! / peer) * 100) / 100 }
      const failed = Object.fromEntries([...found].map(([name, all]) => [name, all.map((one) => one.failed)]))
      const name = `${streams === 1 ? "one stream" : `${streams} streams`}, ${writers} writers`
      figures[name] = { ...rates, ...times, failed, cpuMicros: shownCpu(found), load: loadavg()[0]!.toFixed(0) }
      process.stderr.write(`${name}: ${JSON.stringify(figures[name])}\n`)
    }
  return figures
})

const measureLoads = Effect.fnUntraced(function* (sql: Sql, store: Store, emmett: EmmettStore | undefined) {
  const figures: Record<string, object> = {}
  const load = (stream: string) =>
    Effect.runPromise(Effect.provideService(Aggregate.load(AlertCase, stream), EventStore, store))
  for (const events of numbers(values.loads)) {
    const stream = `load-${events}`
    yield* Effect.forEach(
      Array.from({ length: events }, (_, i) => i),
      () => append(store, stream),
      { concurrency: 1_000 }
    )
    yield* Effect.forEach(
      Array.from({ length: events }, (_, i) => i),
      () => append(store, `${stream}-snapshot`),
      { concurrency: 1_000 }
    )
    const state = JSON.stringify({ state: { status: "open", level: 0, by: null }, subjects: [] })
    const version = events - Math.min(10, events - 1)
    const snapshot = { shape: shapeOf(AlertCase), version, state, subjects: [] }
    yield* store.saveSnapshot(AlertCase.name, `${stream}-snapshot`, snapshot)
    if (emmett !== undefined)
      for (let i = 0; i < events; i += 1_000) {
        const part = Array.from({ length: Math.min(1_000, events - i) }, () => ({ type: event.type, data }))
        yield* Effect.promise(() => emmett.appendToStream(stream, part))
      }
    const evolve = (state: { readonly events: number }) => ({ events: state.events + 1 })
    const ways: Readonly<Record<string, () => Promise<unknown>>> = {
      ...(emmett === undefined
        ? {}
        : { emmett: () => emmett.aggregateStream(stream, { evolve, initialState: () => ({ events: 0 }) }) }),
      millrace: () => load(stream),
      snapshot: () => load(`${stream}-snapshot`)
    }
    const times = events > 10_000 ? 1 : events > 100 ? 20 : 1_000
    const found = new Map<string, Array<{ readonly ms: number; readonly cpu: Cpu }>>()
    // the first run is for the compilers
    for (let run = 0; run <= runs; run++)
      for (const [name, read] of Object.entries(ways)) {
        const before = yield* Effect.promise(() => cpuOf(sql))
        const began = performance.now()
        for (let i = 0; i < times; i++) yield* Effect.promise(read)
        const ms = (performance.now() - began) / times
        const cpu = yield* Effect.promise(() => cpuSince(sql, before, times))
        if (run > 0) found.set(name, [...(found.get(name) ?? []), { ms, cpu }])
      }
    const hundredths = (value: number) => Math.round(value * 100) / 100
    const ms = Object.fromEntries([...found].map(([name, all]) => [name, hundredths(median(all.map((one) => one.ms)))]))
    const ratio = ms["emmett"] === undefined ? {} : { ratio: hundredths(ms["emmett"] / ms["millrace"]!) }
    figures[`load of ${events}`] = { ...ms, ...ratio, cpuMicros: shownCpu(found), load: loadavg()[0]!.toFixed(0) }
    process.stderr.write(`load of ${events}, ms: ${JSON.stringify(figures[`load of ${events}`])}\n`)
  }
  return figures
})

const main = Effect.gen(function* () {
  const rate = Number(values.rate)
  if (values.pulsar) {
    const endpoints = yield* services("pulsar")
    const found: Record<string, object> = {}
    for (const transport of transports) found[transport] = yield* measurePulsar(transport, endpoints, { rate, seconds })
    return found
  }
  if (values.http) return yield* Effect.promise(() => measureHttp(rate, seconds))
  const url = yield* server
  const own = yield* databaseOn(url)
  const sql = yield* connect(own.url, { max: 10 })
  const { statements, store } = PostgresEvents.make(sql)
  yield* store.declare([AlertCase])
  const peer = values.only === "millrace" ? undefined : yield* databaseOn(url)
  const emmett = peer && (yield* Effect.promise(() => openEmmett(peer.url)))
  const appends = yield* measureAppends(sql, store, emmett)
  const loads = yield* measureLoads(sql, store, emmett)
  if (emmett !== undefined) yield* Effect.promise(() => emmett.close())
  return { appendsPerSecond: appends, loadMs: loads, statements: statements() }
})

const result = await Effect.runPromise(Effect.scoped(main))
process.stdout.write(`${JSON.stringify(result, null, 2)}\n`)
