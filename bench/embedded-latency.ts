// From accepted to visible on one machine, embedded: single events over HTTP at a rate, and how long each alert takes to be in SQL and on the stream.
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { openDatabase } from "../src/system/database.ts"
import { recording, stagesOf, textOf } from "./stages.ts"
import { serverCpuSeconds } from "./system.ts"
import { eventOf } from "./workload.ts"

const { values } = parseArgs({
  options: {
    rate: { type: "string", default: "500" },
    seconds: { type: "string", default: "20" },
    warmup: { type: "string", default: "5" },
    stages: { type: "boolean", default: false }
  }
})
const rate = Number(values.rate)
const seconds = Number(values.seconds)
const warmup = Number(values.warmup)

const directory = mkdtempSync(join(tmpdir(), "millrace-latency-"))
const recorded = join(directory, "stages")
const child = spawn(
  process.execPath,
  [...(values.stages ? [recording] : []), "bin/millrace.mjs", "start", "--data", directory, "--port", "0", "--json"],
  {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, STAGES_FILE: recorded }
  }
)
// whatever goes wrong here, it does not live on
process.once("exit", () => child.kill())
const { url } = await new Promise<{ readonly url: string }>((resolve, reject) => {
  child.once("exit", (code) => reject(new Error(`millrace ended with ${code}`)))
  child.stdout.once("data", (line: Buffer) => resolve(JSON.parse(line.toString()) as never))
})
const scope = Scope.makeUnsafe()
const { sql } = await Effect.runPromise(openDatabase(directory, "join", { max: 1 }).pipe(Scope.provide(scope)))

const dueOf = new Map<string, number>()
const accepted = new Map<string, number>()
const inSql = new Map<string, number>()
const onStream = new Map<string, number>()
const stop = new AbortController()

const follow = async () => {
  const response = await fetch(`${url}/v1/alerts`, { signal: stop.signal })
  let rest = ""
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split("\n")
    rest = lines.pop()!
    const now = performance.now()
    for (const line of lines) {
      if (line.startsWith("data:"))
        onStream.set((JSON.parse(line.slice(5)) as { readonly alert_id: string }).alert_id, now)
    }
  }
}
const following = follow().catch(() => undefined)
const open = new Set<string>()
const stopped = new AbortController()
const poll = async () => {
  while (!stopped.signal.aborted || open.size > 0) {
    const ids = [...open]
    if (ids.length > 0) {
      const rows = await sql<
        Array<{ alert_id: string }>
      >`select alert_id from alerts where alert_id = any(${`{${ids.join(",")}}`}::text[])`
      const now = performance.now()
      for (const { alert_id } of rows) {
        inSql.set(alert_id, now)
        open.delete(alert_id)
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}
const polled = poll()

/** So many requests are under way at most. The others wait: the kernel resets connections beyond a server's backlog of 511. */
const atOnce = 200
let underWay = 0
const waiting: Array<() => void> = []

/** Sends one event; when the answer came that the log has it. */
const send = async (body: string): Promise<number> => {
  if (underWay >= atOnce) await new Promise<void>((resolve) => waiting.push(resolve))
  underWay += 1
  try {
    return await post(body)
  } finally {
    underWay -= 1
    waiting.shift()?.()
  }
}
const post = async (body: string): Promise<number> => {
  const response = await fetch(`${url}/v1/events`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body
  })
  await response.text()
  if (response.status !== 202) throw new Error(`the gateway answered ${response.status}`)
  return performance.now()
}

const load = { events: 0, entities: 2_000, seed: 1 }
const total = rate * (seconds + warmup)
const started = performance.now() + 500
const pending: Array<Promise<unknown>> = []
for (let i = 0; i < total; i++) {
  const due = started + (i * 1000) / rate
  const wait = due - performance.now()
  if (wait > 1) await new Promise((resolve) => setTimeout(resolve, wait))
  const { id, text } = eventOf(load, i, Date.now())
  // every fifth is far above any threshold
  const body = i % 5 === 0 ? text.replace(/"amount":[\d.]+/, '"amount":5000') : text
  pending.push(
    send(body).then((at) => {
      if (i % 5 !== 0 || i < warmup * rate) return undefined
      accepted.set(id, at)
      dueOf.set(id, due)
      return open.add(id)
    })
  )
}
await Promise.all(pending)
stopped.abort()
await polled
// the recorder of stages writes once a second
await new Promise((resolve) => setTimeout(resolve, values.stages ? 2_000 : 500))
stop.abort()
await following
const quantiles = (seen: ReadonlyMap<string, number>) => {
  const waits = [...accepted].map(([id, at]) => Math.max(0, (seen.get(id) ?? Infinity) - at)).toSorted((a, b) => a - b)
  const at = (q: number) => Number(waits[Math.min(waits.length - 1, Math.floor(q * waits.length))]!.toFixed(1))
  return {
    p50: at(0.5),
    p95: at(0.95),
    p99: at(0.99),
    max: at(1),
    missing: waits.filter((wait) => wait === Infinity).length
  }
}
/** Of those that were seen; from when they were due, not from when they were accepted. */
const stages = () => {
  const seen = [...inSql].map(
    ([id, at]) => [id, { due: dueOf.get(id)! + performance.timeOrigin, seen: at + performance.timeOrigin }] as const
  )
  return stagesOf(new Map(seen), textOf(recorded))
}
const server = await serverCpuSeconds(sql)
process.stdout.write(
  `${JSON.stringify({ rate, serverMicrosPerEvent: Math.round((server / total) * 1e6), alerts: accepted.size, sqlMs: quantiles(inSql), streamMs: quantiles(onStream), ...(values.stages && { stages: stages() }) })}\n`
)
await Effect.runPromise(Scope.close(scope, Exit.void))
child.kill("SIGTERM")
await new Promise((resolve) => child.once("exit", resolve))
rmSync(directory, { recursive: true, force: true })
