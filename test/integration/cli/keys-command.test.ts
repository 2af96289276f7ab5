// `millrace keys`, and a server that others than this machine reach: it starts only with credentials, and its clients need them.
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Cli from "../../support/cli.ts"
import { commandTests } from "../../support/command-tests.ts"

const { database, directory } = commandTests("keys")

it.live(
  "a server behind a proxy starts only with credentials; keys let clients in, by scope, until they are revoked",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* database
        // a name that a proxy on this machine passes on
        const environment = { MILLRACE_DATABASE_URL: url, MILLRACE_HTTP_HOSTS: "api.example.com" }
        const config = ["--config", "test/support/counting.config.ts"]
        const starting = ["start", ...config, "--port", "0", "--json"]
        const migrated = yield* Cli.run(environment, "migrate", ...config)
        assert.strictEqual(migrated.code, 0, migrated.errors)
        const refused = yield* Cli.run(environment, ...starting)
        assert.strictEqual(refused.code, 1)
        assert.match(refused.errors, /it can be reached as api\.example\.com, and there are none: no API key/)
        assert.match(refused.errors, /^try: millrace keys create NAME .* or --insecure/m)
        // on this machine alone, where only the variable asks for credentials
        const required = {
          MILLRACE_DATABASE_URL: url,
          MILLRACE_HTTP_AUTH: "required",
          MILLRACE_HTTP_HOSTS: "localhost"
        }
        const { code, errors } = yield* Cli.run(required, ...starting)
        assert.strictEqual(code, 1)
        assert.match(
          errors,
          /needs credentials, because MILLRACE_HTTP_AUTH is required, and there are none: no API key/
        )

        const created = yield* Cli.run(environment, "keys", "create", "loader", "--scopes", "ingest", "--json")
        assert.strictEqual(created.code, 0, created.errors)
        const { id, key } = JSON.parse(created.output) as { readonly id: string; readonly key: string }
        const listed = yield* Cli.run(environment, "keys", "list", "--json")
        assert.notInclude(listed.output, key)
        assert.deepInclude((JSON.parse(listed.output) as ReadonlyArray<object>)[0], {
          id,
          name: "loader",
          tenant: null,
          scopes: ["ingest"],
          revoked_at: null
        })
        for (const [args, message] of [
          [["create", "x", "--scopes", "write"], /--scopes has write, which is no scope/],
          [["create", "x", "--scopes", "operate", "--tenant", "a"], /a key of a tenant cannot have the scope operate/],
          [["create", "x", "--scopes", "read", "--expires", "soon"], /--expires is 'soon'/],
          [["revoke", "000000000000"], /there is no key "000000000000"/]
        ] as const) {
          const wrong = yield* Cli.run(environment, "keys", ...args)
          assert.strictEqual(wrong.code, 2, wrong.output)
          assert.match(wrong.errors, message)
        }

        const { output } = yield* Effect.tap(Cli.start(environment, ...starting), ({ said }) => said(/^\{.*\}$/m))
        const at = (JSON.parse(/^\{.*\}$/m.exec(output())![0]) as { readonly url: string }).url
        const status = (path: string, headers: Readonly<Record<string, string>> = {}) =>
          Effect.promise(async () => (await fetch(`${at}${path}`, { headers })).status)
        assert.strictEqual(yield* status("/readyz"), 200)
        assert.strictEqual(yield* status("/v1/topics"), 401)
        assert.strictEqual(yield* status("/v1/topics", { authorization: `Bearer ${key}` }), 403)
        const file = join(directory, "events.ndjson")
        writeFileSync(file, `${JSON.stringify({ type: "unknown" })}\n`)
        const ingest = (given: Readonly<Record<string, string>>) =>
          Cli.run({ MILLRACE_URL: at, ...given }, "ingest", file)
        const without = yield* ingest({})
        assert.strictEqual(without.code, 1)
        assert.match(without.errors, /answered 401[\s\S]*try: set MILLRACE_API_KEY to a key with the scope ingest/)
        // let in, and told that the event is of no topic
        assert.strictEqual((yield* ingest({ MILLRACE_API_KEY: key })).code, 4)

        const asked = yield* Cli.run(environment, "keys", "revoke", key, "--dry-run")
        assert.match(asked.output, /^The key of loader would be revoked/)
        assert.strictEqual(yield* status("/v1/topics", { authorization: `Bearer ${key}` }), 403)
        const revoked = yield* Cli.run(environment, "keys", "revoke", key)
        assert.match(revoked.output, /^The key of loader is revoked/)
        while ((yield* status("/v1/topics", { authorization: `Bearer ${key}` })) !== 401) yield* Effect.sleep(100)
      })
    ),
  120_000
)
