// kill -9 at any point of a run: after every restart the database is consistent, and in the end the tables are as without kills.
//
// MILLRACE_KILL_SEED repeats a run, MILLRACE_KILLS says how many kills there are.
import { spawn, type ChildProcess } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Embedded from "../../src/postgres/embedded/embedded.ts"
import { connect, query, type Sql } from "../../src/postgres/client/client.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import {
  assertDerived,
  assertOracle,
  assertWhole,
  flights,
  flightsFile,
  january,
  planesFile,
  type Moment
} from "../support/oracle.ts"
import { isLong } from "../support/size.ts"

const seed = Number(process.env["MILLRACE_KILL_SEED"] ?? Math.floor(Math.random() * 1e9))
const kills = Number(process.env["MILLRACE_KILLS"] ?? (isLong ? 20 : 3))

/** mulberry32: the same numbers for the same seed. */
const randomOf = (state: number) => () => {
  state = (state + 0x6d2b79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
}
const random = randomOf(seed)
const between = (low: number, high: number) => low + random() * (high - low)

const root = fileURLToPath(new URL("../..", import.meta.url))
const runtime = "Deno" in globalThis ? ["run", "-A", "bin/millrace.mjs"] : ["bin/millrace.mjs"]
const { MILLRACE_DATABASE_URL: _, MILLRACE_KAFKA_BROKERS: __, ...environment } = process.env

interface Child {
  readonly process: ChildProcess
  readonly output: () => string
  readonly errors: () => string
  readonly ended: Promise<number | null>
}
const children = new Set<ChildProcess>()
const millrace = (...args: ReadonlyArray<string>): Child => {
  const child = spawn(process.execPath, [...runtime, ...args], {
    cwd: root,
    env: environment,
    stdio: ["ignore", "pipe", "pipe"]
  })
  children.add(child)
  let output = ""
  let errors = ""
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()))
  const ended = new Promise<number | null>((resolve) =>
    child.once("close", (code) => {
      children.delete(child)
      resolve(code)
    })
  )
  return { process: child, output: () => output, errors: () => errors, ended }
}
/** Kills the directory's server, if one runs and has started: a failure at its start would end its owner. */
const killPostmaster = (dataDir: string): boolean => {
  try {
    const lines = readFileSync(join(dataDir, "postgres", "postmaster.pid"), "utf8").split("\n")
    return lines[7]?.trim() === "ready" && process.kill(Number(lines[0]), "SIGKILL")
  } catch {
    return false
  }
}
/** Joins the directory's server, or starts it, and reads the database. */
const looking = <A, E>(dataDir: string, look: (sql: Sql) => Effect.Effect<A, E>) =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* Embedded.use({ dataDir })
        return yield* look(yield* connect(url, { max: 2 }))
      })
    )
  )

const directories: Array<string> = []
const fresh = () => {
  const directory = mkdtempSync(join(tmpdir(), "millrace-kill-"))
  directories.push(directory)
  return directory
}
afterAll(async () => {
  for (const child of children) child.kill("SIGKILL")
  await sleep(500) // the server of a killed owner stops by itself
  for (const directory of directories)
    rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
})

const dev = (dataDir: string, input: string, speed: string) =>
  millrace(
    "dev",
    "--data",
    dataDir,
    "--features",
    planesFile,
    "--input",
    input,
    "--speed",
    speed,
    "--once",
    "--json",
    "--port",
    "0"
  )

describe("kill -9", () => {
  let dataDir = ""
  const lines = flights()
  let bannerMs = 0
  /** How many of the file's first events are known to be in the log. */
  let frontier = 0
  const phases: Record<string, number> = {}
  const note = (phase: string) => (phases[phase] = (phases[phase] ?? 0) + 1)

  beforeAll(async () => {
    dataDir = fresh()
    const began = performance.now()
    const migrated = millrace("migrate", "--data", dataDir)
    assert.strictEqual(await migrated.ended, 0, migrated.errors())
    bannerMs = performance.now() - began
  })

  /** What is sent: the part in which new events are, slowly enough to be killed within; in the last fifth of the cycles the whole file. */
  const inputOf = (cycle: number): { readonly input: string; readonly speed: string; readonly ms: number } => {
    if (cycle >= Math.floor(kills * 0.8))
      return { input: flightsFile, speed: random() < 0.5 ? "max" : "20000", ms: 2_500 }
    const from = Math.max(0, frontier - Math.floor(between(0, 1_500)))
    const speed = Math.floor(between(500, 2_500))
    const input = join(dataDir, "part.ndjson")
    writeFileSync(input, `${lines.slice(from, from + speed * 2).join("\n")}\n`)
    return { input, speed: String(speed), ms: 2_000 }
  }
  /** False if the run had ended before. */
  const kill = async (cycle: number): Promise<boolean> => {
    const { input, ms, speed } = inputOf(cycle)
    const child = dev(dataDir, input, speed)
    const joiner = cycle % 7 === 3 ? millrace("status", "--data", dataDir, "--json") : undefined
    // a fifth while it starts, a tenth while it stops, the others while events flow
    const [until, after] =
      cycle % 10 === 7
        ? [() => child.output() !== "", between(0, 60)]
        : random() < 0.2
          ? [() => true, between(0, bannerMs)]
          : [() => child.errors().includes("Millrace is running"), between(0, ms)]
    while (!until() && child.process.exitCode === null) await sleep(2)
    await Promise.race([sleep(after), child.ended])
    const postmaster = random() < 0.3 && killPostmaster(dataDir)
    if (postmaster && random() < 0.7) await Promise.race([sleep(between(0, 900)), child.ended])
    const running = child.errors().includes("Millrace is running")
    const done = child.output() !== ""
    assert.oneOf(child.process.exitCode, [null, 0], child.errors())
    child.process.kill("SIGKILL")
    joiner?.process.kill("SIGKILL")
    await Promise.all([child.ended, joiner?.ended])
    const halts = child
      .errors()
      .split("\n")
      .filter((line) => line.includes("halted"))
    assert.deepStrictEqual(halts, [])
    if (child.process.signalCode !== "SIGKILL") return false
    note(!running ? "while it started" : done ? "while it stopped" : "while it ran")
    if (postmaster) note("of these with the server")
    if (joiner !== undefined) note("of these with a joiner")
    return true
  }
  const look = async (before: Moment | undefined) => {
    const now = await looking(dataDir, (sql) =>
      Effect.gen(function* () {
        const [row] = yield* query(
          "count",
          () => sql`select count(distinct (m.value ->> 2))::int8 as n from millrace.log_batch b join millrace.log_topic t using (topic_id),
            json_array_elements(b.meta::json) m where t.name = 'events.raw.v1'`
        )
        frontier = row!["n"]
        return yield* assertWhole(sql)
      })
    )
    assert.isAtLeast(now.events, before?.events ?? 0)
    if (now.events > (before?.events ?? 0)) note("of these with new events committed")
    return now
  }

  it(`${kills} times at random gives the tables of an undisturbed run (seed ${seed})`, async () => {
    process.stdout.write(`seed ${seed}: repeat with MILLRACE_KILL_SEED=${seed}\n`)
    const began = performance.now()
    let before: Moment | undefined
    for (let cycle = 0, killed = 0; killed < kills; cycle++) {
      assert.isBelow(cycle, 2 * kills, "runs that end before they are killed")
      if (await kill(cycle)) killed++
      // every other restart finds what the kill left, with nothing run in between
      if (cycle % 2 === 1 || cycle === 0) before = await look(before)
    }
    const last = dev(dataDir, flightsFile, "max")
    const code = await last.ended
    assert.strictEqual(code, 0, last.errors())
    const { duplicates, seconds, ...result } = JSON.parse(last.output().trim().split("\n").at(-1)!)
    assert.isAbove(seconds, 0)
    assert.deepInclude(result, { events: january.events, late: january.late, alerts: january.alerts, dead_letters: 0 })
    const found = await looking(dataDir, (sql) =>
      Effect.gen(function* () {
        const now = yield* assertWhole(sql)
        yield* assertOracle(sql)
        const { log } = yield* PostgresLog.make(sql)
        yield* assertDerived(sql, log)
        return now
      }).pipe(Effect.scoped)
    )
    assert.deepInclude(found, { events: january.events, late: january.late, scores: january.events })
    assert.strictEqual(found.copied, found.shipped)
    process.stdout.write(
      `${kills} kills in ${Math.round((performance.now() - began) / 1000)} s: ${JSON.stringify(phases)}, duplicates at the end ${duplicates}\n`
    )
  }, 600_000)
})

describe("kill -9 of the server alone", () => {
  it("while events are processed: the run continues, to the same tables", async () => {
    const dataDir = fresh()
    const child = dev(dataDir, flightsFile, "7000")
    while (!child.errors().includes("Millrace is running") && child.process.exitCode === null) await sleep(10)
    let killed = 0
    while (killed < 3 && child.process.exitCode === null) {
      await Promise.race([sleep(between(300, 900)), child.ended])
      if (killPostmaster(dataDir)) killed++
    }
    assert.strictEqual(await child.ended, 0, child.errors())
    assert.strictEqual(killed, 3)
    const result = JSON.parse(child.output().trim().split("\n").at(-1)!)
    assert.deepInclude(result, { events: january.events, late: january.late, alerts: january.alerts, dead_letters: 0 })
    await looking(dataDir, (sql) => Effect.andThen(assertOracle(sql), assertWhole(sql)))
  }, 180_000)
})
