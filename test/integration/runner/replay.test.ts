// A rebuild gives what live processing gave: random applications are processed live with restarts, and a second build replays the log with
// batches that end elsewhere. All tables, late events and dead letters are the same, byte for byte.
import { afterAll, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { playReplay } from "../../support/replay.ts"
import { server } from "../../support/postgres.ts"
import { seed } from "../../support/random.ts"
import { isLong } from "../../support/size.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** How many events an application has; fewer to find the smallest that fails. */
const count = process.env["MILLRACE_TEST_EVENTS"]
const runs = Number(process.env["MILLRACE_TEST_RUNS"] ?? (isLong ? 600 : 60))

describe("a second build equals the first", () => {
  for (let run = 0; run < runs; run++) {
    it.live(
      `application ${run}, seed ${seed}`,
      () => playReplay(root, seed + 13 * run, count === undefined ? undefined : Number(count)),
      60_000
    )
  }
})
