// The numbers of the migration files, which a rebase can get wrong without a conflict.
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { directory, read } from "../../../../src/postgres/client/migrate.ts"

it.effect("the migrations are numbered without gaps and duplicates", () =>
  Effect.gen(function* () {
    assert.isAbove((yield* read(directory)).length, 9)
  })
)
