// Where in the application an error comes from, as a dead letter keeps it.
import { assert, it } from "@effect/vitest"
import * as Data from "effect/Data"
import { KeyNotOwned, placeInApplication } from "../../../src/dead-letter/event-failure.ts"

class Refused extends Data.TaggedError("Refused")<{ readonly what: string }> {}
const here = /^(?:.+ \()?test\/unit\/dead-letter\/place\.test\.ts:\d+:\d+\)?$/
const caught = (does: () => unknown): unknown => {
  try {
    return does()
  } catch (error) {
    return error
  }
}

it("the place is that of the application's own code, from the directory of the process, and has nothing of the message", () => {
  const thrown = [
    new RangeError("ada@example.org\n    at ada (secret.ts:1:1)"),
    new Refused({ what: "x" }),
    // thrown by the runtime, for the application's code
    caught(() => JSON.parse("{")),
    caught(() => new URL("no address"))
  ]
  for (const error of thrown) {
    assert.match(placeInApplication(error) ?? "", here)
    assert.notInclude(placeInApplication(error), "secret")
  }
  assert.strictEqual(placeInApplication({ _tag: "UnknownError", cause: 1 }), undefined)
  const wrapped = Object.assign(new Error("An error occurred"), { _tag: "UnknownError", cause: thrown[0] })
  assert.strictEqual(placeInApplication(wrapped), placeInApplication(thrown[0]))
})
it("what no code of the application threw has no place", () => {
  const { href } = new URL("../../../src/runner/x.ts", import.meta.url)
  const stackOf = (...frames: ReadonlyArray<string>) =>
    Object.assign(new Error("m"), { stack: `Error: m\n${frames.map((frame) => `    at ${frame}`).join("\n")}` })
  const library = "decode (file:///app/node_modules/effect/dist/Schema.js:1:1)"
  assert.isUndefined(
    placeInApplication(stackOf(library, `run (${href}:9:9)`, "process (node:internal/process/task_queues:1:1)"))
  )
  assert.strictEqual(
    placeInApplication(stackOf(library, `add (${href}:9:9)`, "handle (file:///app/orders.ts:3:4)")),
    "handle (/app/orders.ts:3:4)"
  )
  for (const none of ["text", undefined, null, new KeyNotOwned({ target: "t", key: "k" }).message])
    assert.isUndefined(placeInApplication(none))
  const revoked = Proxy.revocable({}, {})
  revoked.revoke()
  assert.isUndefined(placeInApplication(revoked.proxy))
})
