// What tests of commands on a PostgreSQL server share: the server, a folder for files, and commands that must succeed.
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import * as Cli from "./cli.ts"
import { databaseOn, server } from "./postgres.ts"
import { removed } from "./removed.ts"

/** A server and a folder for all tests of a file, which are there until the last of them has ended. `name` is in the folder's name. */
export const commandTests = (name: string) => {
  const scope = Scope.makeUnsafe()
  const directory = mkdtempSync(join(tmpdir(), `millrace-${name}-`))
  let root = ""
  beforeAll(async () => {
    root = await Effect.runPromise(Scope.provide(server, scope))
  }, 120_000)
  afterAll(async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await removed(directory)
  })
  return { directory, database: Effect.suspend(() => databaseOn(root)) }
}
/** Runs commands that must exit with 0. */
export const succeeding =
  (environment: Readonly<Record<string, string>>) =>
  (...args: ReadonlyArray<string>) =>
    Effect.map(Cli.run(environment, ...args), (ended) => {
      assert.strictEqual(ended.code, 0, `${args.join(" ")}: ${ended.output}${ended.errors}`)
      return ended
    })
