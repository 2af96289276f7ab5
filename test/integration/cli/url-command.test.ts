// Who sees the database's password: the caller of `millrace url`, and no line of any other command.
import { assert, it } from "@effect/vitest"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import { connect, query } from "../../../src/postgres/client/client.ts"
import * as Embedded from "../../../src/postgres/embedded/embedded.ts"
import * as Cli from "../../support/cli.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-url-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

it.live(
  "millrace url prints the URL of an embedded database that runs, or that does not run, which it says; the banner and start --json name none",
  () =>
    Effect.gen(function* () {
      const dataDir = join(yield* temporary, "state")
      const none = yield* Cli.run({}, "url", "--data", dataDir)
      assert.deepStrictEqual([none.code, none.output], [1, ""])
      const url = yield* Effect.scoped(
        Effect.gen(function* () {
          const server = yield* Embedded.start({ dataDir })
          const running = yield* Cli.run({}, "url", "--data", dataDir)
          assert.deepStrictEqual([running.code, running.output, running.errors], [0, `${server.url}\n`, ""])
          const reader = (yield* Cli.run({}, "url", "--reader", "--data", dataDir)).output.trim()
          const sql = yield* connect(reader, { max: 1 })
          const rows = yield* query("who", () => sql`select current_user::text as role`)
          assert.strictEqual(rows[0]?.["role"], "millrace_reader")
          const password = new URL(server.url).password
          const masked = server.url.replace(password, "***")
          for (const args of [["start", "--json", "--roles", "api"], ["dev"], ["dev", "--once", "--json"]]) {
            const { ended, errors, output, said } = yield* Cli.start(
              { MILLRACE_DATABASE_URL: server.url },
              ...args,
              "--port",
              "0"
            )
            yield* said(/database(_url|  )/)
            if (args.includes("--once")) yield* ended
            assert.notInclude(output() + errors(), password, args.join(" "))
            if (args.includes("--json")) assert.strictEqual(JSON.parse(output()).database_url, masked)
            else assert.match(output(), /psql "\$\((npx millrace|deno [\w:. -]+) url\)"/)
          }
          return server.url
        })
      )
      const stopped = yield* Cli.run({}, "url", "--data", dataDir)
      assert.deepStrictEqual([stopped.code, stopped.output], [3, `${url}\n`])
      assert.match(stopped.errors, /does not run/)
    }).pipe(Effect.scoped),
  90_000
)

it.live(
  "millrace url prints a foreign database's URL as it is, and needs MILLRACE_READER_URL for a reader",
  () =>
    Effect.gen(function* () {
      const foreign = { MILLRACE_DATABASE_URL: "postgres://u:hunter-2@127.0.0.1:1/db" }
      assert.strictEqual((yield* Cli.run(foreign, "url")).output, `${foreign.MILLRACE_DATABASE_URL}\n`)
      const refused = yield* Cli.run(foreign, "url", "--reader")
      assert.deepStrictEqual([refused.code, refused.output], [1, ""])
      assert.include(refused.errors, "MILLRACE_READER_URL is not set")
      const reader = { MILLRACE_READER_URL: "postgres://r:s@h/db" }
      assert.strictEqual((yield* Cli.run({ ...foreign, ...reader }, "url", "--reader")).output, "postgres://r:s@h/db\n")
    }),
  60_000
)

it.live(
  "no command's error shows a password, with the stack neither, whatever URL it stands in",
  () =>
    Effect.gen(function* () {
      const bad = [
        [{ MILLRACE_DATABASE_URL: "postgres://u:hunter-2@127.0.0.1:1/db" }, "status"],
        [{ MILLRACE_DATABASE_URL: "postgres//u:hunter-2@127.0.0.1:1/db" }, "sql", "select 1"],
        [{ MILLRACE_DATABASE_URL: "postgres://127.0.0.1:1/db?password=hunter-2&user=u" }, "sql", "select 1"],
        [{ MILLRACE_DATABASE_URL: "postgres://u:hunter-2@@127.0.0.1:x/db" }, "dlq", "list"],
        [{ MILLRACE_URL: "http://u:hunter-2@127.0.0.1:1" }, "ingest", "package.json"],
        [{ MILLRACE_PULSAR_URL: "pulsr://u:hunter-2@127.0.0.1:1" }, "subscribe", "t"],
        [{ MILLRACE_PULSAR_ADMIN_URL: "htp://u:hunter-2@127.0.0.1:1" }, "pulsar", "plan"]
      ] as const
      for (const [environment, ...args] of bad) {
        const { code, errors, output } = yield* Cli.run({ ...environment, MILLRACE_DEBUG: "1" }, ...args)
        assert.notStrictEqual(code, 0)
        assert.include(errors, "millrace: ", args.join(" "))
        assert.notInclude(output + errors, "hunter-2", args.join(" "))
      }
    }),
  90_000
)
