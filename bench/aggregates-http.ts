// How long a command over HTTP takes until its rows can be read in SQL, those written in the append and those of a projection behind it, and until
// a consumer of Pulsar has its event.
import { spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import postgres from "postgres"
import { AlertCase } from "../aggregates/alert-case.ts"
import { locate } from "../src/postgres/embedded/embedded.ts"
import * as PulsarFanOut from "../src/pulsar/subscription/fanout.ts"
import type { Endpoints } from "../stack/service.ts"
import { environmentOf, makeNamespace, optionsOf, type TransportName } from "../test/support/pulsar.ts"
import { percentile } from "./percentile.ts"

type Environment = Readonly<Record<string, string | undefined>>
/** The consumer that waits for events on Pulsar, and how a process publishes to it. */
interface PulsarConsumer {
  readonly environment: Environment
  /** When the first event of a stream was received. */
  readonly receivedAt: (stream: string) => Promise<number>
}

const config = ["--config", "bench/aggregates.config.ts"]

/** Creates the topics of the application on Pulsar, and consumes those of the aggregate until the scope closes. */
const consumePulsar = Effect.fnUntraced(function* (transport: TransportName, endpoints: Endpoints) {
  const namespace = `bench-${process.pid}-${transport}`
  const environment = environmentOf(transport, endpoints, namespace)
  const options = { ...optionsOf(transport, endpoints), namespace }
  yield* Effect.promise(() => makeNamespace(options))
  const { status, stderr } = spawnSync(process.execPath, ["bin/millrace.mjs", "pulsar", "apply", ...config], {
    env: { ...process.env, ...environment },
    encoding: "utf8"
  })
  if (status !== 0) throw new Error(`the topics could not be created: ${stderr}`)
  const fanOut = yield* PulsarFanOut.make(options)
  const consumer = yield* fanOut.subscribe({ topic: AlertCase.name, name: "bench", type: "exclusive" })
  const received = new Map<string, PromiseWithResolvers<number>>()
  const waiting = (stream: string) => {
    const found = received.get(stream) ?? Promise.withResolvers<number>()
    received.set(stream, found)
    return found
  }
  const receive = Effect.gen(function* () {
    const messages = yield* consumer.receive(500)
    const at = performance.now()
    for (const { key } of messages) waiting(key!).resolve(at)
    yield* consumer.acknowledge(messages)
  })
  yield* Effect.forkScoped(Effect.forever(receive))
  return { environment, receivedAt: (stream) => waiting(stream).promise } satisfies PulsarConsumer
})

/**
 * Sends commands at a rate for so many seconds after a warm-up of 3, and returns the latencies in milliseconds, each from when the command was due.
 */
const measure = async (rate: number, seconds: number, pulsar: PulsarConsumer | undefined): Promise<object> => {
  const directory = mkdtempSync(join(tmpdir(), "millrace-bench-"))
  const child = spawn(
    process.execPath,
    ["bin/millrace.mjs", "start", "--data", directory, "--port", "0", "--json", ...config],
    { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, ...pulsar?.environment } }
  )
  process.once("exit", () => child.kill())
  const { url } = await new Promise<{ readonly url: string }>((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`millrace ended with ${code}`)))
    child.stdout.once("data", (line: Buffer) => resolve(JSON.parse(line.toString()) as never))
  })
  // what the command prints has no password
  const located = await Effect.runPromise(locate(directory))
  if (located === undefined) throw new Error("the embedded PostgreSQL is gone")
  const sql = postgres(located.url, { max: 4, fetch_types: false })
  const times = { answer: [], inlineRow: [], asyncRow: [], pulsar: [] } as Record<string, Array<number>>
  const warmup = 3
  const visible = async (table: string, id: string) => {
    while ((await sql`select from ${sql(table)} where case_id = ${id}`).length === 0)
      await new Promise((resolve) => setTimeout(resolve, 2))
    return performance.now()
  }
  const send = async (i: number, due: number) => {
    const id = `case-${i}`
    const took = async (name: string, done: Promise<number>) => {
      const at = await done
      if (i >= warmup * rate) times[name]!.push(at - due)
    }
    const received = pulsar && took("pulsar", pulsar.receivedAt(id))
    const answered = await fetch(`${url}/v1/aggregates/alert-case/${id}/commands/open`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": id },
      body: JSON.stringify({ at: 1_700_000_000_000 + i, entity_id: `entity-${i % 100}`, score: 912.5 })
    })
    const text = await answered.text()
    if (!answered.ok) throw new Error(`a command was answered ${answered.status}: ${text}`)
    await took("answer", Promise.resolve(performance.now()))
    await took("inlineRow", visible("cases", id))
    await took("asyncRow", visible("later_cases", id))
    await received
  }
  const began = performance.now() + 200
  const sending: Array<Promise<void>> = []
  for (let i = 0; i < rate * (seconds + warmup); i++) {
    const due = began + (i * 1_000) / rate
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())))
    sending.push(send(i, due))
  }
  await Promise.all(sending)
  await sql.end()
  child.kill("SIGTERM")
  await new Promise((resolve) => child.once("exit", resolve))
  rmSync(directory, { recursive: true, force: true })
  const latencies = Object.entries(times).flatMap(([name, all]) => {
    const sorted = all.toSorted((a, b) => a - b)
    return all.length === 0 ? [] : [[`${name}Ms`, { p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99) }]]
  })
  return { rate, commands: rate * seconds, ...Object.fromEntries(latencies), load: loadavg()[0]!.toFixed(0) }
}

/** Measures commands over HTTP on an application of its own, until they can be read in SQL. */
export const measureHttp = (rate: number, seconds: number): Promise<object> => measure(rate, seconds, undefined)
/** The same for an application that publishes to Pulsar, and until a consumer there has the event. */
export const measurePulsar = Effect.fnUntraced(function* (
  transport: TransportName,
  endpoints: Endpoints,
  options: { readonly rate: number; readonly seconds: number }
) {
  const pulsar = yield* consumePulsar(transport, endpoints)
  return yield* Effect.promise(() => measure(options.rate, options.seconds, pulsar))
}, Effect.scoped)
