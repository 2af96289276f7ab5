// `millrace rebuild --until` of the reference application on a state directory: killed and continued, read, and ended.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gunzipSync } from "node:zlib"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { query } from "../../../src/postgres/client/client.ts"
import { openDatabase } from "../../../src/system/database.ts"
import { run, start } from "../../support/cli.ts"

const events = { before: 1_500, after: 500 }
const tables = ["alerts", "entity_activity"]

it.live(
  "rebuild --until gives the read model as it was at that time, continues after SIGKILL, and is never promoted",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const directory = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-until-"))),
          (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
        )
        const data = join(directory, "state")
        const lines = gunzipSync(readFileSync("projections/flights/2013-01.ndjson.gz")).toString().split("\n")
        const process = Effect.fnUntraced(function* (from: number, to: number) {
          const input = join(directory, `${from}.ndjson`)
          writeFileSync(input, lines.slice(from, to).join("\n"))
          const features = ["--features", "projections/flights/planes.ndjson.gz"]
          const args = ["--data", data, ...features, "--input", input, "--once", "--port", "0"]
          const dev = yield* run({}, "dev", ...args)
          assert.strictEqual(dev.code, 0, dev.errors)
        })
        yield* process(0, events.before)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { sql } = yield* openDatabase(data, "join", { max: 2 })
            for (const table of tables)
              yield* query("keep", () => sql.unsafe(`create table public.kept_${table} as table signals_v1.${table}`))
          })
        )
        const at = new Date().toISOString()
        yield* process(events.before, events.before + events.after)

        const command = (...args: ReadonlyArray<string>) => run({}, args[0]!, "--data", data, ...args.slice(1))
        const rebuild = (...args: ReadonlyArray<string>) => command("rebuild", "signals", ...args)
        // from here on PostgreSQL runs, so that commands start faster
        const { sql } = yield* openDatabase(data, "join", { max: 2 })
        const plan = yield* rebuild("--until", at, "--plan", "--json")
        assert.deepInclude(JSON.parse(plan.output), { build: 2, events: events.before, until: at, continues: false })
        const killed = yield* start({}, "rebuild", "--data", data, "signals", "--until", at, "--rate", "300")
        yield* killed.said(/[1-9]\d* records replayed/)
        killed.process.kill("SIGKILL")
        yield* killed.ended
        assert.match(
          killed.output(),
          /create build 2 of signals[^]*it has what the log stored before [^]*never promoted/
        )
        const status = yield* command("status", "--json")
        assert.deepInclude(JSON.parse(status.output).builds, {
          name: "signals",
          build: 2,
          version: 1,
          role: "investigation",
          until: at
        })
        const rest = yield* rebuild("--until", at, "--rate", "max")
        assert.strictEqual(rest.code, 0, rest.errors)
        assert.match(rest.output, /^continue build 2 of signals[^]*\nread its tables as signals_v2\.TABLE/)
        let rows = 0
        for (const table of tables) {
          const [kept, found] = [
            `select t::text from public.kept_${table} t`,
            `select t::text from signals_v2.${table} t`
          ]
          const [row] = yield* query("compare", () =>
            sql.unsafe<Array<{ rows: number; n: number }>>(
              `select (select count(*) from (${kept}) x)::int4 as rows,
                ((select count(*) from (${kept} except all ${found}) x) + (select count(*) from (${found} except all ${kept}) x))::int4 as n`
            )
          )
          assert.strictEqual(row!.n, 0, table)
          rows += row!.rows
        }
        assert.isAbove(rows, 100)
        const text = yield* command("status")
        assert.include(text.output, `builds of signals: 1 live, 2 investigation until ${at}`)
        assert.notMatch(text.output, /signals v2[^\n]*(late|halted|no process)/)

        const promoted = yield* command("promote", "signals", "--build", "2")
        assert.strictEqual(promoted.code, 3)
        assert.include(promoted.errors, `build 2 of projection signals ends at ${at}; it is for looking only`)
        const dropped = yield* command("retire", "signals", "2", "--drop")
        assert.strictEqual(dropped.code, 0, dropped.errors)
        const [left] = yield* query("ends", () => sql`select count(*)::int4 as n from millrace.rebuild_until`)
        assert.strictEqual(left!.n, 0)

        const before = yield* rebuild("--until", "2001-01-31T12:00Z")
        assert.match(
          before.errors,
          /--until 2001-01-31T12:00:00\.000Z is before all records that the log has of the sources/
        )
        assert.strictEqual(before.code, 2)
      })
    ),
  180_000
)

it.live("times that are none or in the future, and other flags that do not fit, are refused", () =>
  Effect.gen(function* () {
    const usage = (...args: ReadonlyArray<string>) =>
      Effect.map(run({}, "rebuild", "signals", "--until", ...args), ({ code, errors }) => `${code} ${errors}`)
    const from = (...args: ReadonlyArray<string>) =>
      Effect.map(run({}, "rebuild", "signals", "--from", ...args), ({ code, errors }) => `${code} ${errors}`)
    assert.match(yield* from("soon"), /^2 millrace: --from 'soon' is neither a duration nor a date[^]*--from now/)
    assert.match(yield* from("2999-01-01"), /^2 millrace: --from '2999-01-01' is in the future, where the log has no/)
    assert.match(yield* from("2 days", "--until", "1 day"), /^2 millrace: --from and --until exclude each other/)
    assert.match(yield* usage("soon"), /^2 millrace: --until 'soon' is neither a duration nor a date/)
    assert.match(yield* usage("2999-01-01"), /^2 millrace: --until '2999-01-01' is in the future, where the log has no/)
    assert.match(yield* usage("2 hours", "--from", "now"), /^2 millrace: --from now and --until exclude each other/)
  })
)
