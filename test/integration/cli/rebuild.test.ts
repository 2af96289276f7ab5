// `millrace rebuild` of the reference application on a state directory: on a stopped system, interrupted, killed and continued, and beside `dev`.
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gunzipSync } from "node:zlib"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { openDatabase } from "../../../src/system/database.ts"
import { run, start } from "../../support/cli.ts"
import { removed } from "../../support/removed.ts"

const events = 2_000
const flights = (file: string, lines: number) =>
  gunzipSync(readFileSync(`projections/flights/${file}`))
    .toString()
    .split("\n")
    .slice(0, lines)
    .join("\n")

/** A state directory with so many flights, which live processing has processed. */
const processed = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-rebuild-"))),
    (path) => Effect.promise(() => removed(path))
  )
  const input = join(directory, "flights.ndjson")
  writeFileSync(input, flights("2013-01.ndjson.gz", events))
  const features = "projections/flights/planes.ndjson.gz"
  const data = join(directory, "state")
  const dev = yield* run(
    {},
    "dev",
    "--data",
    data,
    "--features",
    features,
    "--input",
    input,
    "--once",
    "--json",
    "--port",
    "0"
  )
  assert.strictEqual(dev.code, 0, dev.errors)
  return data
})
/** The rows that two builds of the reference application differ by, as bytes; and how many rows the first one has. */
const differences = (sql: Sql, a: number, b: number) =>
  query("compare", async () => {
    const found: Record<string, number> = {}
    let rows = 0
    for (const table of ["alerts", "entity_activity"]) {
      const [one, other] = [a, b].map((build) => `select t::text from signals_v${build}.${table} t`)
      const [row] = await sql.unsafe<Array<{ rows: number; n: number }>>(
        `select (select count(*) from (${one}) x)::int4 as rows,
          ((select count(*) from (${one} except all ${other}) x) + (select count(*) from (${other} except all ${one}) x))::int4 as n`
      )
      found[table] = row!.n
      rows += row!.rows
    }
    const late = (build: number) =>
      `select topic, partition, position, number, window_name, window_size, window_start, key::text from millrace.late_events where version = ${build}`
    const [row] = await sql.unsafe<Array<{ n: number }>>(
      `select ((select count(*) from (${late(a)} except all ${late(b)}) x) + (select count(*) from (${late(b)} except all ${late(a)}) x))::int4 as n`
    )
    return { ...found, late: row!.n, rows }
  })
const same = { alerts: 0, entity_activity: 0, late: 0 }

it.live(
  "a rebuild on a stopped system gives the same bytes, continues after SIGINT and SIGKILL, and can be cancelled",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const data = yield* processed
        const rebuild = ["rebuild", "signals", "--data", data] as const
        const whole = yield* run({}, ...rebuild, "--json")
        assert.strictEqual(whole.code, 0, whole.errors)
        const result = JSON.parse(whole.output) as Record<string, unknown>
        assert.deepInclude(result, { projection: "signals", build: 2, live: 1, state: "done", events })
        // from here on PostgreSQL runs, so that commands start faster
        const { sql } = yield* openDatabase(data, "join", { max: 2 })
        const { rows, ...found } = yield* differences(sql, 1, 2)
        assert.deepStrictEqual(found, same)
        assert.isAbove(rows, 1_000)

        const planned = yield* run({}, ...rebuild, "--cancel", "--plan", "--json")
        const unchanged = { projection: "signals", build: 2, state: "unchanged", dry_run: true }
        assert.deepStrictEqual(JSON.parse(planned.output), unchanged)
        const cancelled = yield* run({}, ...rebuild, "--cancel", "--json")
        assert.deepStrictEqual(JSON.parse(cancelled.output), { projection: "signals", build: 2, state: "cancelled" })
        const none = yield* run({}, ...rebuild, "--pause")
        assert.strictEqual(none.code, 3)
        assert.match(none.errors, /signals has no build that follows the live one/)

        const interrupted = yield* start({}, ...rebuild, "--rate", "300")
        yield* interrupted.said(/[1-9]\d* records replayed/)
        interrupted.process.kill("SIGINT")
        assert.strictEqual(yield* interrupted.ended, 130)
        assert.match(
          interrupted.errors(),
          /build 3 of signals stays as far as it is\. Continue it with: millrace rebuild signals/
        )

        const killed = yield* start({}, ...rebuild, "--rate", "300")
        yield* killed.said(/[1-9]\d* records replayed/)
        killed.process.kill("SIGKILL")
        yield* killed.ended
        assert.match(killed.output(), /continue build 3 of signals/)

        const plan = yield* run({}, ...rebuild, "--plan", "--json")
        const { continues, events: left } = JSON.parse(plan.output) as { continues: boolean; events: number }
        assert.isTrue(continues && left > 0 && left < events, plan.output)
        const last = yield* run({}, ...rebuild, "--rate", "max", "--json")
        assert.deepInclude(JSON.parse(last.output), { build: 3, state: "done", events: left })
        const { rows: _, ...after } = yield* differences(sql, 1, 3)
        assert.deepStrictEqual(after, same)
      })
    ),
  180_000
)

it.live(
  "a rebuild beside a running dev is processed by both, and dev goes on with it",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const data = yield* processed
        const dev = yield* start({}, "dev", "--data", data, "--port", "0")
        yield* dev.said(/Millrace is running/)
        const rebuilt = yield* run({}, "rebuild", "signals", "--data", data, "--max-live-lag", "5", "--json")
        assert.strictEqual(rebuilt.code, 0, rebuilt.errors)
        const { sql } = yield* openDatabase(data, "join", { max: 2 })
        const { rows: _, ...found } = yield* differences(sql, 1, 2)
        assert.deepStrictEqual(found, same)
        // what comes now is processed by dev in both builds
        const url = /http:\/\/127[^/\s]*/.exec(dev.output())![0]
        const more = join(data, "..", "more.ndjson")
        writeFileSync(
          more,
          flights("2013-01.ndjson.gz", events + 500)
            .split("\n")
            .slice(events)
            .join("\n")
        )
        const sent = yield* run({ MILLRACE_URL: url }, "ingest", "--data", data, more)
        assert.strictEqual(sent.code, 0, sent.errors)
        for (let i = 0; i < 500; i++) {
          const [row] = yield* query(
            "positions",
            () => sql<Array<{ least: number }>>`select min(n) as least from (select sum(next_position)::int8 as n
              from millrace.progress where projection = 'signals' group by version) x`
          )
          if (row!.least === events + 500) break
          yield* Effect.sleep("20 millis")
        }
        const { rows: __, ...after } = yield* differences(sql, 1, 2)
        assert.deepStrictEqual(after, same)
      })
    ),
  180_000
)

it.live("flags that exclude each other or have no meaning are refused before anything is opened", () =>
  Effect.gen(function* () {
    const usage = (...args: ReadonlyArray<string>) =>
      Effect.map(run({}, "rebuild", "signals", ...args), ({ code, errors }) => `${code} ${errors}`)
    assert.match(yield* usage("--pause", "--cancel"), /^2 millrace: --pause and --cancel exclude each other/)
    assert.match(
      yield* usage("--rate", "0"),
      /^2 millrace: --rate is '0'; it must be a number from 0.001 to 1000000000, or max/
    )
    assert.match(
      yield* usage("--max-live-lag", "x"),
      /^2 millrace: --max-live-lag is 'x'; it must be a number from 0.001 to 1000000000, or none/
    )
  })
)
