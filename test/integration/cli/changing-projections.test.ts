// A projection is changed in production as docs/operations/versions.md says: the page's commands, on a stopped system, and then beside a running one.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { run, start } from "../../support/cli.ts"

const page = readFileSync(fileURLToPath(new URL("../../../docs/operations/versions.md", import.meta.url)), "utf8")
/** The arguments of the commands in the blocks that are marked to be run. */
const commands = [...page.matchAll(/^( *)```sh run\n([\s\S]*?)^\1```/gm)]
  .flatMap(([, , block = ""]) => block.split("\n"))
  .map((line) => line.trim())
  .filter((line) => line !== "")
  .map((line) => line.replace(/^npx millrace /, "").split(" "))
const config = fileURLToPath(new URL("../../support/changing.config.ts", import.meta.url))
const count = 40

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-changing-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

it.live(
  "the commands of the page rebuild, compare, promote, roll back and retire on a stopped system, and again beside a running one",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const path = yield* directory
        const own = ["--data", join(path, "data")]
        const input = join(path, "sightings.ndjson")
        const lines = Array.from({ length: count }, (_, i) =>
          JSON.stringify({ type: "seen", id: `s${i}`, who: `w${i % 5}` })
        )
        writeFileSync(input, lines.join("\n"))
        const both = { TEST_VERSIONS: "1,2" }
        const ok = (environment: Record<string, string>, ...args: ReadonlyArray<string>) =>
          Effect.map(run(environment, ...args, ...own, "--config", config), (ended) => {
            assert.strictEqual(ended.code, 0, `${args.join(" ")}: ${ended.output}${ended.errors}`)
            return ended.output
          })
        yield* ok({}, "dev", "--once", "--input", input, "--port", "0")
        assert.deepStrictEqual(
          commands.map(([name]) => name),
          ["rebuild", "rebuild", "diff", "promote", "promote", "promote", "promote", "retire"]
        )
        for (const args of commands) {
          const ended = yield* run(both, ...args, ...own, "--config", config)
          // the change is meant, so the builds differ
          const expected = args[0] === "diff" ? 3 : 0
          assert.strictEqual(ended.code, expected, `${args.join(" ")}: ${ended.output}${ended.errors}`)
        }
        // beside a running system, without a change
        const dev = yield* start(both, "dev", ...own, "--config", config, "--port", "0")
        yield* dev.said(/Millrace is running/)
        yield* ok(both, "rebuild", "signals", "--json")
        const promoted = JSON.parse(yield* ok(both, "promote", "signals", "--timeout", "30s", "--json")) as Record<
          string,
          unknown
        >
        assert.deepInclude(promoted, { projection: "signals", from: 2, to: 3, state: "promoted", stale: [] })
        assert.isAbove(promoted["pauseMs"] as number, 0)
        const status = JSON.parse(yield* ok(both, "status", "--json")) as { builds: unknown }
        assert.deepStrictEqual(status.builds, [
          { name: "signals", build: 2, version: 2, role: "previous" },
          { name: "signals", build: 3, version: 2, role: "live" }
        ])
        const sql = (text: string) =>
          Effect.map(run({}, "sql", ...own, "--format", "tsv", text), ({ output }) => output.trim())
        assert.strictEqual(
          yield* sql(`select count(*), min(first) ~ 's', bool_and(last = upper(last)) from people`),
          "5\tt\tt"
        )
        // every event was published once, by the first build
        assert.strictEqual(
          yield* sql(
            "select sum(records) from millrace.log_batch join millrace.log_topic using (topic_id) where name = 'alerts.v1'"
          ),
          String(count)
        )
        dev.process.kill("SIGTERM")
        yield* dev.ended
      })
    ),
  180_000
)
