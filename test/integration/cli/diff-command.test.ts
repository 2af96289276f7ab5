// `millrace diff` as a process: on a stopped embedded system, beside `millrace dev`, and its exit codes.
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { run, start } from "../../support/cli.ts"
import { removed } from "../../support/removed.ts"

const directory = mkdtempSync(join(tmpdir(), "millrace-diff-"))
afterAll(() => removed(directory))

const flags = ["--config", "test/support/counting.config.ts", "--data", join(directory, "data")]
const diff = (...more: ReadonlyArray<string>) => run({}, "diff", "counting", ...flags, ...more)
const write = (text: string) => run({}, "sql", text, "--write", "--data", join(directory, "data"))
const input = join(directory, "payments.ndjson")
writeFileSync(
  input,
  Array.from({ length: 200 }, (_, i) =>
    JSON.stringify({ type: "paid", id: `p${i}`, who: `w${i % 9}`, at: Date.UTC(2024, 0, 1, i % 5) })
  ).join("\n")
)
const dev = (...more: ReadonlyArray<string>) =>
  ["dev", ...flags, "--input", input, "--speed", "max", "--port", "0", "--json", ...more] as const

it.live(
  "a candidate is compared on a stopped system and beside `dev`, and the exit code says whether it is equal",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        assert.strictEqual((yield* run({}, ...dev("--once"))).code, 0)
        const none = yield* diff()
        assert.strictEqual(none.code, 3)
        assert.include(
          none.errors,
          "projection counting has no candidate: no build is newer than the live one, build 1"
        )
        assert.strictEqual((yield* run({}, "rebuild", "counting", ...flags)).code, 0)
        const equal = yield* diff("--json")
        assert.deepStrictEqual([equal.code, equal.errors], [0, ""])
        const { tables, ...found } = JSON.parse(equal.output) as { readonly tables: ReadonlyArray<object> }
        assert.deepInclude(found, { projection: "counting", live: 1, candidate: 2, equal: true, frozenMs: 0 })
        assert.deepInclude(tables[0], { name: "counts", missing: 0, extra: 0, changed: 0, rounding: 0, samples: [] })

        assert.strictEqual(
          (yield* write("update counting_v2.counts set payments = payments + 1 where who = 'w3'")).code,
          0
        )
        const running = yield* start({}, ...dev())
        yield* running.said(/Millrace is running/)
        const text = yield* diff("--samples", "1")
        assert.strictEqual(text.code, 3)
        assert.match(text.output, /^counting: build 2 compared with the live build 1/)
        assert.match(text.output, /changed: who "w3", window_size "1h", window_start .*: payments \d+ → \d+\n/)
        assert.match(text.output, /\ndifferent\n$/)
        const wrong = yield* Effect.all([diff("--timeout", "soon"), diff("--samples", "-1"), diff("--with", "9")])
        assert.deepStrictEqual(
          wrong.map(({ code }) => code),
          [2, 2, 3]
        )
      })
    )
)
