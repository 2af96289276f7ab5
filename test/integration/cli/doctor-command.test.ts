// `millrace doctor`: what is wrong has a line with the command that fixes it, and once that was run nothing is wrong.
import { writeFileSync } from "node:fs"
import { createServer, type AddressInfo } from "node:net"
import { join, resolve } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Cli from "../../support/cli.ts"
import { commandTests } from "../../support/command-tests.ts"

// without a tsconfig.json, so that the types of the whole project are not checked
const { database, directory } = commandTests("doctor")
const config = ["--config", resolve("test/support/counting.config.ts")]
interface Found {
  readonly name: string
  readonly ok: boolean
  readonly message: string
  readonly try: string | null
}
const listening = Effect.acquireRelease(
  Effect.promise(
    () =>
      new Promise<ReturnType<typeof createServer>>((listen) => {
        const one = createServer((socket) => socket.destroy())
        one.listen(0, "127.0.0.1", () => listen(one))
      })
  ),
  (one) => Effect.sync(() => one.close())
)

it.live(
  "what is missing is named with what fixes it; a prepared database has nothing to fix; nothing is changed",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql, url } = yield* database
        const environment = { MILLRACE_DATABASE_URL: url }
        const doctor = Effect.fnUntraced(function* (
          given: Readonly<Record<string, string>>,
          code: number,
          ...args: ReadonlyArray<string>
        ) {
          const started = yield* Cli.startCommandIn(directory, given, "doctor", "--json", ...args)
          assert.strictEqual(yield* started.ended, code, started.output() + started.errors())
          const { checks } = JSON.parse(started.output()) as { readonly checks: ReadonlyArray<Found> }
          return new Map(checks.map((check) => [check.name, check]))
        })
        const wrong = (found: ReadonlyMap<string, Found>) =>
          [...found.values()].flatMap(({ name, ok }) => (ok ? [] : [name]))

        const other = yield* listening
        const port = String((other.address() as AddressInfo).port)
        const fresh = yield* doctor(environment, 3, ...config, "--port", port)
        assert.deepStrictEqual(wrong(fresh), ["identity", "topics", "port"])
        assert.match(fresh.get("identity")!.try!, /^millrace migrate/)
        assert.strictEqual(fresh.get("topics")!.try, "millrace topics apply")
        assert.strictEqual(fresh.get("port")!.message, `another program has 127.0.0.1:${port}`)
        const topics = yield* Effect.promise(() => sql`select name from millrace.log_topic`)
        assert.strictEqual(topics.length, 0)

        const migrated = yield* Cli.run(environment, "migrate", ...config)
        assert.strictEqual(migrated.code, 0, migrated.errors)
        const prepared = yield* doctor(environment, 0, ...config, "--port", "0")
        assert.deepStrictEqual(wrong(prepared), [])
        assert.match(prepared.get("database")!.message, /^PostgreSQL \d+.* writable by the role/)
        assert.match(prepared.get("topics")!.message, /^3 topics on PostgreSQL are as declared$/)

        yield* Effect.promise(() => sql`update millrace.progress set halted = 'a reason' where partition = 0`)
        const halted = yield* doctor(environment, 3, ...config, "--port", "0")
        assert.deepStrictEqual(wrong(halted), ["status"])
        assert.match(halted.get("status")!.message, /^projection counting v1.*a reason/)

        const broken = join(directory, "broken.config.ts")
        writeFileSync(broken, "throw new Error('no such topic')\n")
        const refused = yield* doctor(
          {
            MILLRACE_DATABASE_URL: "postgres://nobody:secret-word@127.0.0.1:1/none",
            MILLRACE_PULSAR_URL: "pulsar://127.0.0.1:1"
          },
          3,
          "--config",
          broken,
          "--port",
          "0"
        )
        assert.deepStrictEqual(wrong(refused), ["application", "database", "pulsar"])
        assert.match(refused.get("application")!.message, /does not load: no such topic$/)
        assert.notInclude(JSON.stringify([...refused.values()]), "secret-word")
      })
    ),
  60_000
)
