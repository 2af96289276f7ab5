// Checks what an aggregate of a user's own is declared with. Pure.
import * as Schema from "effect/Schema"
import { assertOptions, refuse } from "./declaration.ts"
import { assertFunction, assertSync } from "./user-code.ts"

/** Throws `InvalidDeclaration` or an `Error` if the options of `Agg.fold` can never work. */
export const assertFold = (options: object): void => {
  const what = "Agg.fold"
  assertOptions(what, options, ["input", "state", "initial", "add", "merge"], ["input", "state", "initial", "add"])
  const { add, initial, merge, state } = options as Readonly<Record<string, unknown>>
  for (const [name, run] of Object.entries({ add, ...(merge !== undefined && { merge }) })) {
    assertFunction(`${what}: \`${name}\``, run)
    assertSync(`${what}: \`${name}\``, run)
  }
  if (!Schema.isSchema(state))
    return refuse(what, "`state` is no schema; use one of `effect/Schema`, as `Schema.Number`")
  if (!Schema.is(state as Schema.Schema<unknown>)(initial)) refuse(what, "`initial` does not fit the schema of `state`")
}
