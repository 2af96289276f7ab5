// `millrace rebuild --keys` and `--from` on a stopped system, killed and continued, and beside a running one.
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../../../src/postgres/client/client.ts"
import { openDatabase } from "../../../src/system/database.ts"
import { run, start } from "../../support/cli.ts"
import { removed } from "../../support/removed.ts"

const config = fileURLToPath(new URL("../../support/changing.config.ts", import.meta.url))

/** Breaks rows of the live build, and rebuilds some of them: killed once, then continued, and promoted. */
const rebuiltWhileStopped = (
  sql: Sql,
  {
    keys,
    ok,
    own,
    peopleIn
  }: {
    readonly keys: string
    readonly own: ReadonlyArray<string>
    readonly ok: (...args: ReadonlyArray<string>) => Effect.Effect<string>
    readonly peopleIn: (sql: Sql, table: string) => Effect.Effect<string, SqlError>
  }
) =>
  Effect.scoped(
    Effect.gen(function* () {
      assert.strictEqual(yield* peopleIn(sql, "signals_v1.people"), "w0s35 w1s36 w2s37 w3s38 w4s39")
      yield* query("break rows", () => sql.unsafe("update signals_v1.people set last = '?' where who < 'w3'"))

      const plan = JSON.parse(yield* ok("rebuild", "signals", "--keys", keys, "--plan", "--json")) as object
      assert.deepInclude(plan, { build: 2, events: 40, keys: { given: 3, found: 2, unknown: 1, events: 16 } })
      const killed = yield* start({}, "rebuild", "signals", "--keys", keys, "--rate", "8", ...own)
      yield* killed.said(/[1-9]\d* records replayed/)
      killed.process.kill("SIGKILL")
      yield* killed.ended
      assert.match(
        killed.output(),
        /create build 2 of signals[^]*\n  keys     2 of 3 keys have 16 events; 1 is unknown to the log, and left as it is\n  then     their rows are put into a copy of build 1, which is build 2\n/
      )
      const rest = yield* ok("rebuild", "signals", "--keys", keys, "--rate", "max")
      assert.match(
        rest,
        /^continue build 2[^]*\npeople: 2 rows of the keys were replaced by 2\nbuild 2 of signals is where/
      )
      assert.strictEqual(yield* peopleIn(sql, "signals_v2.people"), "w0s35 w1s36 w2? w3s38 w4s39")
      yield* ok("promote", "signals", "--timeout", "30s")
      assert.strictEqual(yield* peopleIn(sql, "public.people"), "w0s35 w1s36 w2? w3s38 w4s39")
    })
  )

it.live(
  "rebuild --keys replaces the rows of the keys alone, after SIGKILL too, and rebuild --from begins empty beside a running system",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const directory = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-keys-"))),
          (path) => Effect.promise(() => removed(path))
        )
        const own = ["--data", join(directory, "data"), "--config", config]
        const [input, keys, others] = ["in.ndjson", "keys.txt", "others.txt"].map((name) => join(directory, name))
        const lines = Array.from({ length: 40 }, (_, i) =>
          JSON.stringify({ type: "seen", id: `s${i}`, who: `w${i % 5}` })
        )
        writeFileSync(input!, lines.join("\n"))
        writeFileSync(keys!, "w0\n\n w1 \nw0\nnobody\n")
        writeFileSync(others!, "w2")
        const command = (...args: ReadonlyArray<string>) => run({}, ...args, ...own)
        const ok = (...args: ReadonlyArray<string>) =>
          Effect.map(command(...args), ({ code, errors, output }) => {
            assert.strictEqual(code, 0, `${args.join(" ")}: ${output}${errors}`)
            return output
          })
        yield* ok("dev", "--once", "--input", input!, "--port", "0")
        const begun = new Date().toISOString()
        const onDatabase = <A, E, R>(use: (sql: Sql) => Effect.Effect<A, E, R>) =>
          Effect.scoped(
            Effect.flatMap(openDatabase(join(directory, "data"), "join", { max: 2 }), ({ sql }) => use(sql))
          )
        const peopleIn = (sql: Sql, table: string) =>
          query("people", () =>
            sql.unsafe<Array<{ text: string }>>(`select who || last as text from ${table} order by 1`)
          ).pipe(Effect.map((rows) => rows.map(({ text }) => text).join(" ")))
        const people = (table: string) => onDatabase((sql) => peopleIn(sql, table))
        // while it is open, PostgreSQL runs, so that commands start faster
        yield* onDatabase((sql) => rebuiltWhileStopped(sql, { keys: keys!, ok, own, peopleIn }))
        const dev = yield* start({}, "dev", ...own, "--port", "0")
        yield* dev.said(/Millrace is running/)
        const result = JSON.parse(yield* ok("rebuild", "signals", "--keys", others!, "--json")) as object
        assert.deepInclude(result, {
          build: 4,
          live: 2,
          keys: { given: 1, found: 1, unknown: 0, events: 8 },
          tables: [{ name: "people", removed: 1, inserted: 1 }]
        })
        assert.strictEqual(yield* people("signals_v4.people"), "w0s35 w1s36 w2s37 w3s38 w4s39")
        yield* ok("rebuild", "signals", "--cancel")
        const later = JSON.parse(yield* ok("rebuild", "signals", "--from", begun, "--json")) as object
        assert.deepInclude(later, { build: 6, live: 2, state: "done", from: begun, events: 0 })
        assert.strictEqual(yield* people("signals_v6.people"), "")
        assert.include((yield* command("status")).output, `6 candidate from ${begun}`)
      })
    ),
  180_000
)

it.live("files without keys, and flags that do not fit to --keys, are refused", () =>
  Effect.gen(function* () {
    const usage = (...args: ReadonlyArray<string>) =>
      Effect.map(run({}, "rebuild", "signals", "--keys", ...args), ({ code, errors }) => `${code} ${errors}`)
    assert.match(yield* usage("/nowhere.txt"), /^2 millrace: --keys: ENOENT[^]*try: a file with one key a line/)
    assert.match(yield* usage("-"), /^2 millrace: - has no keys/)
    assert.match(yield* usage("a.txt", "--from", "now"), /^2 millrace: --keys and --from exclude each other/)
    assert.match(yield* usage("a.txt", "--cancel"), /^2 millrace: --keys and --cancel exclude each other/)
  })
)
