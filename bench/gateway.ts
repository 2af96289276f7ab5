// How fast the gateway takes events: HTTP, checks and the log, in memory or on PostgreSQL, in a process of its own. It measures no projection.
// In turn with it a bare Fastify, which reads the same bodies as text and answers, so that the rest is what Millrace does.
//   node bench/gateway.ts [--seconds 5] [--connections 50] [--batch 5000] [--postgres] [--input FILE.ndjson[.gz]] [--profile DIR] [--json]
import { fork, type ChildProcess } from "node:child_process"
import { readFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { gunzipSync } from "node:zlib"
import autocannon from "autocannon"
import Fastify from "fastify"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Log, specOf } from "../src/log/log.ts"
import { make } from "../src/memory/log.ts"
import * as Postgres from "../src/postgres/log/log.ts"
import { catalogOf } from "../src/server/http/catalog.ts"
import { serve, type ServeOptions } from "../src/server/server.ts"
import { database } from "../test/support/postgres.ts"
import application from "../test/support/signals.ts"

const { values: options } = parseArgs({
  options: {
    seconds: { type: "string", default: "5" },
    connections: { type: "string", default: "50" },
    batch: { type: "string", default: "5000" },
    input: { type: "string" },
    postgres: { type: "boolean", default: false },
    profile: { type: "string" },
    json: { type: "boolean", default: false },
    serve: { type: "boolean", default: false },
    // the server is the bare Fastify
    bare: { type: "boolean", default: false }
  }
})
const seconds = Number(options.seconds)

interface Figures {
  readonly eventsPerSecond: number
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Of the server's process, by event. */
  readonly cpuMicrosAnEvent: number
}

const onPostgres = Effect.flatMap(database, ({ sql }) =>
  Effect.map(Layer.build(Postgres.layer(sql)), (context) => Context.get(context, Log))
)

/** Fastify alone: it reads a body as text, and answers with a text as long as that for one event. */
const bare = Effect.gen(function* () {
  const app = Fastify({ bodyLimit: 64 * 1024 * 1024 })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser("*", { parseAs: "string" }, (_, body, done) => done(null, body))
  const answer = JSON.stringify({ trace_id: "0".repeat(32), accepted: 1, rejected: 0, results: [] })
  app.post("/v1/events", async (_, reply) => reply.code(202).type("application/json; charset=utf-8").send(answer))
  process.send?.(yield* Effect.promise(() => app.listen({ host: "127.0.0.1", port: 0 })))
  yield* answered
  yield* Effect.promise(() => app.close())
})
/** Answers `cpu` with the CPU time of this process until `stop` comes. */
const answered = Effect.callback<void>((resume) => {
  process.on("message", (message) => {
    if (message === "stop") resume(Effect.void)
    else process.send?.(process.cpuUsage())
  })
})
/** The measured process: answers `cpu` with its CPU time, `stop` with its end. */
const server = Effect.gen(function* () {
  const log = options.postgres ? yield* onPostgres : make().log
  const app = application as unknown as ServeOptions["application"]
  const topics = [...catalogOf(app, 0).topics.values()].map(({ topic }) => specOf(topic, 12))
  yield* log.declare(topics)
  const served = yield* serve({ application: app, port: 0 }).pipe(Effect.provideContext(Context.make(Log, log)))
  process.send?.(served.url)
  yield* answered
})

/** Events such as a feed of departures delivers: 250 bytes each. */
const synthetic = (count: number): ReadonlyArray<string> =>
  Array.from({ length: count }, (_, i) =>
    JSON.stringify({
      event_id: `f-${String(i).padStart(6, "0")}`,
      entity_id: `N${10_000 + ((i * 7919) % 3_322)}`,
      type: "flight.departed",
      amount: (i * 31) % 240,
      occurred_at: 1_357_035_420_000 + i * 100_000,
      tenant: ["ua", "aa", "dl", "b6"][i % 4],
      attributes: {
        flight: `UA${i % 2_000}`,
        origin: "EWR",
        dest: "IAH",
        distance: 1_400,
        delay: (i * 31) % 240,
        scheduled_at: 1_357_035_300_000 + i * 100_000
      }
    })
  )

const inputOf = (file: string): ReadonlyArray<string> => {
  const bytes = readFileSync(file)
  const text = (file.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString("utf8")
  return text.split("\n").filter((line) => line !== "")
}

const ask = <A>(child: ChildProcess, message?: string): Promise<A> =>
  new Promise((done) => {
    child.once("message", (answer) => done(answer as A))
    if (message !== undefined) child.send(message)
  })

const cpuOf = async (child: ChildProcess): Promise<number> => {
  const { system, user } = await ask<NodeJS.CpuUsage>(child, "cpu")
  return system + user
}

/** NDJSON bodies one after another on two connections, so that one is being sent while another is taken. */
const bulk = async (child: ChildProcess, url: string, lines: ReadonlyArray<string>): Promise<Figures> => {
  const batch = Number(options.batch)
  const bodies = Array.from({ length: Math.ceil(lines.length / batch) }, (_, i) =>
    lines.slice(i * batch, (i + 1) * batch)
  )
  const headers = { "content-type": "application/x-ndjson", prefer: "return=minimal" }
  const millis: Array<number> = []
  let events = 0
  let next = 0
  const send = async (until: number) => {
    while (performance.now() < until) {
      const body = bodies[next++ % bodies.length]!
      const began = performance.now()
      const response = await fetch(`${url}/v1/events`, { method: "POST", headers, body: body.join("\n") })
      if (response.status !== 202) throw new Error(`${response.status}: ${await response.text()}`)
      await response.arrayBuffer()
      millis.push(performance.now() - began)
      events += body.length
    }
  }
  await send(performance.now() + 1_000)
  millis.length = 0
  events = 0
  const cpu = await cpuOf(child)
  const began = performance.now()
  await Promise.all([send(began + seconds * 1_000), send(began + seconds * 1_000)])
  const took = (performance.now() - began) / 1_000
  millis.sort((a, b) => a - b)
  return {
    eventsPerSecond: Math.round(events / took),
    requestsPerSecond: Math.round(millis.length / took),
    p50Ms: millis[Math.floor(millis.length * 0.5)]!,
    p99Ms: millis[Math.floor(millis.length * 0.99)]!,
    cpuMicrosAnEvent: ((await cpuOf(child)) - cpu) / events
  }
}

const single = async (child: ChildProcess, url: string, line: string, duration: number): Promise<Figures> => {
  const cpu = await cpuOf(child)
  const result = await autocannon({
    url: `${url}/v1/events`,
    method: "POST",
    headers: { "content-type": "application/json" },
    body: line,
    connections: Number(options.connections),
    duration
  })
  if (result.non2xx > 0 || result.errors > 0) throw new Error(`${result.non2xx} refused, ${result.errors} failed`)
  return {
    eventsPerSecond: Math.round(result.requests.average),
    requestsPerSecond: Math.round(result.requests.average),
    p50Ms: result.latency.p50,
    p99Ms: result.latency.p99,
    cpuMicrosAnEvent: ((await cpuOf(child)) - cpu) / result["2xx"]
  }
}

/** Measures one server, in a process of its own. */
const measured = async (lines: ReadonlyArray<string>, flags: ReadonlyArray<string>) => {
  const execArgv = options.profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${options.profile}`]
  const child = fork(import.meta.filename, ["--serve", ...flags], { execArgv })
  try {
    const url = await ask<string>(child)
    // singles first: what a bulk leaves in the memory log would be the garbage collector's work in their time
    await single(child, url, lines[0]!, 2)
    return { single: await single(child, url, lines[0]!, seconds), bulk: await bulk(child, url, lines) }
  } finally {
    child.send("stop")
  }
}

const main = async (): Promise<void> => {
  const lines = options.input === undefined ? synthetic(27_000) : inputOf(options.input)
  const ofBare = await measured(lines, ["--bare"])
  const ofMillrace = await measured(lines, options.postgres ? ["--postgres"] : [])
  const figures = {
    "bare Fastify, single": ofBare.single,
    "gateway, single": ofMillrace.single,
    "bare Fastify, bulk": ofBare.bulk,
    "gateway, bulk": ofMillrace.bulk
  }
  if (options.json) console.log(JSON.stringify(figures))
  else console.table(figures)
}

if (options.serve) {
  await Effect.runPromise(Effect.scoped(options.bare ? bare : server))
  process.disconnect()
} else await main()
