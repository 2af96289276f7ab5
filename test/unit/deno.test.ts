// The list of test files that run on Deno names files and folders that exist.
import { existsSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "vitest"
import { onDeno } from "../deno.ts"

it("every path in test/deno.ts exists", () => {
  const tests = join(import.meta.dirname, "..")
  assert.deepStrictEqual(
    Object.keys(onDeno).filter((path) => !existsSync(join(tests, path))),
    []
  )
})
