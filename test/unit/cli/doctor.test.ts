// What `millrace doctor` prints, and how a check that fails becomes a line with advice.
import * as Effect from "effect/Effect"
import { expect, test } from "vitest"
import { doctorText, isAtLeast } from "../../../src/cli/doctor-actions.ts"
import { checked, passed, wrong } from "../../../src/system/check.ts"

test("versions are compared number by number", () => {
  expect(isAtLeast("24.1.0", "22.19")).toBe(true)
  expect(isAtLeast("22.19.0", "22.19")).toBe(true)
  expect(isAtLeast("22.9.0", "22.19")).toBe(false)
  expect(isAtLeast("3.0", "2.9.1")).toBe(true)
})
test("each check is a line, with what fixes it below, and nothing that a terminal would obey", () => {
  expect(doctorText([passed("runtime", "Node 24"), wrong("disk", "full\n\u001b[2J", "free space")])).toBe(
    [
      "✓ runtime  Node 24",
      String.raw`✗ disk     full\n\u001b[2J`,
      "           try: free space",
      "1 thing to fix."
    ].join("\n")
  )
  expect(doctorText([passed("runtime", "Node 24")])).toMatch(/Everything is in order\.$/)
})
test.each([
  ["its own advice", { message: "away", try: "start it" }, { message: "away", try: "start it" }],
  ["the advice of its message", { message: "away. try: start it" }, { message: "away", try: "start it" }],
  ["the advice of the check", { message: "away" }, { message: "away", try: "look" }]
])("a check that fails is wrong with %s", async (_, error, expected) => {
  expect(await Effect.runPromise(checked("x", "look", Effect.fail(error)))).toEqual([
    { name: "x", ok: false, ...expected }
  ])
})
test("a check that throws is wrong, too", async () => {
  const [found] = await Effect.runPromise(checked("x", "look", Effect.die(new Error("a defect"))))
  expect(found).toEqual(wrong("x", "a defect", "look"))
})
