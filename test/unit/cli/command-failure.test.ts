// What commands print and with which code they exit when they fail.
import { assert, test } from "vitest"
import { InvalidBridge } from "../../../src/index.ts"
import { CommandFailed, exitCodeOf, exitCodes, explain, usageError } from "../../../src/cli/command-failure.ts"
import { DeadLettersFailed } from "../../../src/system/dead-letters/errors.ts"
import { BridgeRulesError, SystemHalted } from "../../../src/system/errors.ts"

test("each error has the exit code that scripts rely on", () => {
  const codes = [
    [new CommandFailed({ message: "m" }), exitCodes.failed],
    [new CommandFailed({ message: "m", exitCode: exitCodes.rejected }), exitCodes.rejected],
    [usageError("m"), exitCodes.usage],
    [new InvalidBridge("m"), exitCodes.usage],
    [new BridgeRulesError({ message: "m", try: "t" }), exitCodes.failed],
    [new SystemHalted({ message: "m" }), exitCodes.unhealthy],
    [new Error("m"), exitCodes.failed],
    ["text", exitCodes.failed]
  ] as const
  for (const [error, code] of codes) assert.strictEqual(exitCodeOf(error), code, String(error))
})

test("an error of dead letters has the exit code of its cause", () => {
  const failed = (cause: Error) =>
    new DeadLettersFailed({ kind: "bridge", message: cause.message, retryable: false, cause })
  assert.strictEqual(exitCodeOf(failed(new InvalidBridge("m"))), exitCodes.usage)
  assert.strictEqual(exitCodeOf(failed(new Error("m"))), exitCodes.failed)
})

test("an error is explained by its message, and by what to do if it says so", () => {
  assert.strictEqual(explain(usageError("no such flag", "--all")), "millrace: no such flag\ntry: --all")
  assert.strictEqual(explain(new Error("broken")), "millrace: broken")
  assert.strictEqual(explain("text"), "millrace: text")
  assert.strictEqual(explain(undefined), "millrace: undefined")
})
