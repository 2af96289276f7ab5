// Commands that name a topic, a projection, an aggregate or a role that does not exist: each names the one that may have been meant.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { command } from "../../support/command.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url = ""
beforeAll(async () => {
  const root = await Effect.runPromise(Scope.provide(server, scope))
  ;({ url } = await Effect.runPromise(Scope.provide(databaseOn(root), scope)))
  const { code, err } = await Effect.runPromise(command(url, "migrate"))
  assert.strictEqual(code, 0, err)
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

it.live.each([
  [["subscribe", "alert.v1"], 1, /there is no topic alert\.v1: .*\ntry: did you mean alerts\.v1\?/],
  [["topics", "export", "events.raw.v2"], 1, /has no topic events\.raw\.v2\ntry: did you mean events\.raw\.v1\?/],
  [["start", "--roles", "gateway,relays"], 2, /unknown role relays\ntry: did you mean relay\?/],
  [
    ["timers", "list", "--aggregate", "alertcase"],
    2,
    /no aggregate called 'alertcase'\ntry: did you mean alert-case\?/
  ],
  [["keys", "create", "x", "--scopes", "ingst"], 2, /which is no scope\ntry: did you mean ingest\?/]
] as const)("%j exits with %d and names what may be meant", ([args, code, text]) =>
  Effect.gen(function* () {
    const ended = yield* command(url, ...args)
    assert.match(ended.err, text)
    assert.strictEqual(ended.code, code)
  })
)
