// A policy that is rebuilt and promoted while it runs, with the commands: what it sent is not sent again, and what comes later is sent once.
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { run, start } from "../../support/cli.ts"
import { removed } from "../../support/removed.ts"

const data = mkdtempSync(join(tmpdir(), "millrace-policy-"))
afterAll(() => removed(data))
const own = ["--config", "test/support/notices.config.ts", "--data", data]

const ok = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
  const { code, errors, output } = yield* run({}, ...args)
  assert.strictEqual(code, 0, `${args.join(" ")}: ${errors}`)
  return output.trim()
})

it.live(
  "a policy under rebuild and promote sends nothing twice, and its timers that wait fire once",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const dev = yield* start({}, "dev", ...own, "--port", "0")
        const url = (yield* dev.said(/POST http:\S+?:\d+/)).slice("POST ".length)
        const place = (ids: ReadonlyArray<string>) =>
          Effect.forEach(ids, (id) =>
            Effect.promise(() =>
              fetch(`${url}/v1/aggregates/order/${id}/commands/place`, {
                method: "POST",
                body: JSON.stringify({ customer: "ann", cents: 100 }),
                headers: { "content-type": "application/json" }
              })
            )
          )
        const sums = ok(
          "sql",
          "--data",
          data,
          "--format",
          "tsv",
          "select count(*), sum(number), min(number), max(number) from notices"
        )
        const lastLine = Effect.map(sums, (text) => text.split("\n").at(-1))
        const until = Effect.fnUntraced(function* (expected: string) {
          let found: string | undefined
          for (let left = 15; left > 0 && (found = yield* lastLine) !== expected; left--) yield* Effect.sleep(300)
          assert.strictEqual(found, expected)
        })

        yield* place(["a", "b", "c"])
        yield* until("3\t6\t2\t2")
        yield* ok("rebuild", "notifying", ...own)
        // those whose timers are set before the promotion, and wait beyond it
        yield* place(["d", "e"])
        yield* ok("promote", "notifying", ...own, "--timeout", "30s")
        yield* place(["f", "g"])
        yield* until("7\t14\t2\t2")
        yield* Effect.sleep(1_500)
        assert.strictEqual(yield* lastLine, "7\t14\t2\t2")
        assert.deepStrictEqual(JSON.parse(yield* ok("timers", "list", "--data", data, "--json")), [])
      })
    ),
  90_000
)
