// Lanes of relays on PostgreSQL: a process that hangs loses its lanes, and joins again when it continues.
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as PostgresOutbox from "../../../../src/postgres/relay/outbox.ts"
import type { Sql } from "../../../../src/postgres/client/client.ts"
import { database } from "../../../support/postgres.ts"
import { until } from "../../../support/until.ts"

const child = fileURLToPath(new URL("../../../support/lanes-child.ts", import.meta.url))
const runtime = "Deno" in globalThis ? ["run", "-A"] : []
const targets = ["kafka", "pulsar"]

/** A process that holds lanes, and the last line that it printed for each target. It is killed with the scope. */
const holder = (url: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const made = spawn(process.execPath, [...runtime, child, url, ...targets], {
        stdio: ["ignore", "pipe", "inherit"]
      })
      const said: Record<string, string> = {}
      made.stdout.setEncoding("utf8").on("data", (text: string) => {
        for (const line of text.split("\n")) if (line !== "") said[line.split(" ")[0]!] = line
      })
      return { made, said }
    }),
    ({ made }) => Effect.sync(() => void made.kill("SIGKILL"))
  )
/** Claims until this process has both lanes of every target, and returns how many milliseconds that took. */
const takeAll = Effect.fnUntraced(function* (sql: Sql) {
  const outbox = PostgresOutbox.make(sql)
  yield* Effect.forEach(
    targets,
    Effect.fnUntraced(function* (target) {
      const lanes = yield* outbox.lanes(target, undefined, (lane) => `test/${lane}`)
      while ((yield* lanes.claim(2)).held.length < 2) yield* Effect.sleep(100)
    }),
    { concurrency: "unbounded" }
  )
})
// Deno considers a process that was suspended to have ended
const stop = (made: ChildProcess, signal: "SIGSTOP" | "SIGCONT") => Effect.sync(() => process.kill(made.pid!, signal))

it.live(
  "another process gets the lanes of a process that hangs, which gets its share when it continues",
  () =>
    Effect.gen(function* () {
      const { sql, url } = yield* database
      const { made, said } = yield* holder(url)
      yield* until(() => targets.every((target) => said[target] === `${target} 0,1`))
      yield* stop(made, "SIGSTOP")
      yield* Effect.scoped(takeAll(sql))
      yield* stop(made, "SIGCONT")
      // it finds its session ended, and joins again
      for (const target of targets) delete said[target]
      yield* until(() => targets.every((target) => said[target] === `${target} 0,1`))
      const rows = yield* Effect.promise(
        () =>
          sql`select count(distinct pid)::integer as sessions from pg_locks where locktype = 'advisory' and objsubid = 2`
      )
      assert.strictEqual(rows[0]!["sessions"], targets.length)
    }).pipe(Effect.scoped),
  90_000
)

it.live(
  "a process that is only idle keeps its lanes",
  () =>
    Effect.gen(function* () {
      const { sql, url } = yield* database
      const { said } = yield* holder(url)
      yield* until(() => targets.every((target) => said[target] === `${target} 0,1`))
      const before = yield* Effect.promise(() => sql`select pid from pg_locks where locktype = 'advisory' order by 1`)
      const outbox = PostgresOutbox.make(sql)
      const lanes = yield* outbox.lanes("kafka", undefined, (lane) => `test/${lane}`)
      yield* lanes.claim(2)
      yield* until(() => said["kafka"] === "kafka 0,1")
      const after = yield* Effect.promise(() => sql`select pid from pg_locks where locktype = 'advisory' order by 1`)
      for (const { pid } of before)
        assert.include(
          after.map((row) => row["pid"]),
          pid
        )
    }).pipe(Effect.scoped),
  60_000
)
