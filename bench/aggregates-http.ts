// How long a command over HTTP takes until its rows can be read in SQL: those written in the append, and those of a projection behind it.
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import postgres from "postgres"
import { locate } from "../src/postgres/embedded/embedded.ts"
import { percentile } from "./percentile.ts"

/** Sends commands at a rate for so many seconds after a warm-up of 3, and returns the latencies in milliseconds. */
export const measureHttp = async (rate: number, seconds: number): Promise<object> => {
  const directory = mkdtempSync(join(tmpdir(), "millrace-bench-"))
  const config = ["--config", "bench/aggregates.config.ts"]
  const child = spawn(
    process.execPath,
    ["bin/millrace.mjs", "start", "--data", directory, "--port", "0", "--json", ...config],
    { stdio: ["ignore", "pipe", "inherit"] }
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
  const [answers, inline, later] = [[], [], []] as [Array<number>, Array<number>, Array<number>]
  const warmup = 3
  const visible = async (table: string, id: string) => {
    while ((await sql`select from ${sql(table)} where case_id = ${id}`).length === 0)
      await new Promise((resolve) => setTimeout(resolve, 2))
    return performance.now()
  }
  const send = async (i: number, due: number) => {
    const id = `case-${i}`
    const answered = await fetch(`${url}/v1/aggregates/alert-case/${id}/commands/open`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": id },
      body: JSON.stringify({ at: 1_700_000_000_000 + i, entity_id: `entity-${i % 100}`, score: 912.5 })
    })
    const text = await answered.text()
    if (!answered.ok) throw new Error(`a command was answered ${answered.status}: ${text}`)
    const at = performance.now()
    const times = [at, await visible("cases", id), await visible("later_cases", id)]
    if (i < warmup * rate) return
    for (const [n, list] of [answers, inline, later].entries()) list.push(times[n]! - due)
  }
  const began = performance.now() + 200
  const sending: Array<Promise<void>> = []
  for (let i = 0; i < rate * (seconds + warmup); i++) {
    const due = began + (i * 1_000) / rate
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())))
    sending.push(send(i, due))
  }
  await Promise.all(sending)
  const of = (times: ReadonlyArray<number>) => {
    const sorted = times.toSorted((a, b) => a - b)
    return { p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99) }
  }
  await sql.end()
  child.kill("SIGTERM")
  await new Promise((resolve) => child.once("exit", resolve))
  rmSync(directory, { recursive: true, force: true })
  return {
    rate,
    commands: answers.length,
    answerMs: of(answers),
    inlineRowMs: of(inline),
    asyncRowMs: of(later),
    load: loadavg()[0]!.toFixed(0)
  }
}
