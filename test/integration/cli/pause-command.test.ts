// `millrace pause` and `resume`: no process goes on with a paused projection, also not one that starts later, and none of its events is lost.
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Cli from "../../support/cli.ts"
import { commandTests, succeeding } from "../../support/command-tests.ts"

const { database, directory } = commandTests("pause")
const config = ["--config", "test/support/counting.config.ts"]

it.live(
  "a paused projection keeps its positions in processes that run and that start, is shown by the status, and goes on where it was",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql, url } = yield* database
        const environment = { MILLRACE_DATABASE_URL: url }
        const ok = succeeding(environment)
        yield* ok("migrate", ...config)
        const send = (name: string, count: number) => {
          const file = join(directory, name)
          const events = Array.from({ length: count }, (_, i) => ({ type: "paid", id: `${name}${i}`, who: "w", at: i }))
          writeFileSync(file, events.map((event) => JSON.stringify(event)).join("\n"))
          return ok("ingest", file, ...config)
        }
        const processed = Effect.promise(async () => {
          const [row] = await sql`select coalesce(sum(next_position), 0)::int as sum from millrace.progress`
          return Number(row!["sum"])
        })
        const until = (count: number) =>
          Effect.gen(function* () {
            while ((yield* processed) < count) yield* Effect.sleep(50)
          }).pipe(Effect.timeout("10 seconds"))

        assert.match((yield* ok("pause", "counting", ...config)).output, /^counting is paused: /)
        assert.match((yield* ok("pause", "counting", "--json")).output, /"paused":true,"changed":false/)
        yield* send("a", 3)
        // it starts after the pause
        const started = yield* Cli.start(environment, "start", "--roles", "projections", ...config, "--port", "0")
        yield* started.said(/projections at/)
        const watched = yield* Cli.start(environment, "status", "--watch", "--json")
        yield* watched.said(/"kind":"paused"[^}]*3 records of counting.payments wait/)
        yield* Effect.sleep(500)
        assert.strictEqual(yield* processed, 0)

        assert.match((yield* ok("resume", "counting")).output, /^counting goes on/)
        yield* until(3)
        // while it runs
        yield* ok("pause", "counting")
        yield* Effect.sleep(600)
        yield* send("b", 2)
        assert.strictEqual(yield* processed, 3)
        yield* ok("resume", "counting")
        yield* until(5)
        watched.process.kill("SIGINT")
        // on Deno the signal ends the command before it can end by itself
        assert.strictEqual(yield* watched.ended, "Deno" in globalThis ? null : 0)

        const unknown = yield* Cli.run(environment, "pause", "conting")
        assert.deepStrictEqual(
          [unknown.code, unknown.errors],
          [3, "millrace: this database has no projection called 'conting'\ntry: did you mean counting?\n"]
        )
        yield* Effect.promise(() => sql`update millrace.projection set lifecycle = 'inline'`)
        const inline = yield* Cli.run(environment, "pause", "counting")
        assert.strictEqual(inline.code, 3)
        assert.match(inline.errors, /projection counting is inline: .* would refuse every command/)
      })
    ),
  60_000
)
