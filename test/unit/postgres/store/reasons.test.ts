// How the store names what it could not do, while no server answers.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import postgres from "postgres"
import { make } from "../../../../src/postgres/store/store.ts"

it.live("a failed note calls a partition halted or waiting only if it is", () =>
  Effect.gen(function* () {
    const sql = postgres("postgres://127.0.0.1:1/none", { max: 1 })
    const store = make(sql)
    const at = { projection: "p", version: 1, topic: "t", partition: 0 }
    for (const [noting, operation] of [
      [store.halt(at, "why"), "note why a partition is halted"],
      [store.waiting(at, "why"), "note why a partition waits"],
      [store.halt(at, undefined), "note that a partition is processed"],
      [store.waiting(at, undefined), "note that a partition is processed"]
    ] as const) {
      const failed = yield* Effect.flip(noting)
      assert.strictEqual(failed.operation, operation)
      assert.isTrue(failed.retryable)
    }
    yield* Effect.promise(() => sql.end({ timeout: 1 }))
  })
)
