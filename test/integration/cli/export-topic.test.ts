// `millrace topics export`: what it prints is taken by another system, with versions and in the order of each key.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { run } from "../../support/cli.ts"

const config = ["--config", "test/support/changing.config.ts"]
const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-export-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

it.live(
  "the events of a topic are exported in the order of each key, and give the same rows in a second system",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const path = yield* directory
        const ok = (...args: ReadonlyArray<string>) =>
          Effect.map(run({}, ...args), (ended) => {
            assert.strictEqual(ended.code, 0, `${args.join(" ")}: ${ended.output}${ended.errors}`)
            return ended
          })
        const events = Array.from({ length: 30 }, (_, i) => ({ type: "seen", id: `s${i}`, who: `w${i % 5}` }))
        const first = ["--data", join(path, "first")]
        const second = ["--data", join(path, "second")]
        const load = (file: string, text: string, data: ReadonlyArray<string>) => {
          writeFileSync(join(path, file), text)
          return ok("dev", "--once", "--port", "0", "--input", join(path, file), ...config, ...data)
        }
        yield* load("events.ndjson", events.map((event) => JSON.stringify(event)).join("\n"), first)
        const exported = yield* ok("topics", "export", "sightings", ...first)
        assert.match(exported.errors, /30 events of sightings/)
        const lines = exported.output
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as (typeof events)[number])
        for (const who of ["w0", "w1", "w2", "w3", "w4"])
          assert.deepStrictEqual(
            lines.filter((event) => event.who === who),
            events.filter((event) => event.who === who).map(({ id, type }) => ({ type, id, who, schema_version: 1 }))
          )
        const unknown = yield* run({}, "topics", "export", "nothing", ...first)
        assert.strictEqual(unknown.code, 1)
        assert.match(unknown.errors, /nothing/)

        yield* load("exported.ndjson", exported.output, second)
        const rows = (data: ReadonlyArray<string>) =>
          Effect.map(ok("sql", "--format", "tsv", "select * from people order by who", ...data), ({ output }) => output)
        assert.strictEqual(yield* rows(second), yield* rows(first))
      })
    ),
  60_000
)
