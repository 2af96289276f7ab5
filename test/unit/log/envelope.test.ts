// Which texts are trace contexts: one changed at each of its characters, and texts that are nearly one.
import { expect, test } from "vitest"
import { isTraceparent } from "../../../src/log/envelope.ts"

const trace = "0af7651916cd43dd8448eb211c80319c"
const span = "b7ad6b7169203331"
const whole = `00-${trace}-${span}-01`

test.each([whole, `fe-${trace}-${span}-00`, `0f-${"0".repeat(31)}1-${"0".repeat(15)}a-ff`])(
  "a trace context: %s",
  (text) => {
    expect(isTraceparent(text)).toBe(true)
  }
)
test.each([
  "",
  `ff-${trace}-${span}-01`,
  `00-${"0".repeat(32)}-${span}-01`,
  `00-${trace}-${"0".repeat(16)}-01`,
  `00-${trace.toUpperCase()}-${span}-01`,
  `${whole}\n`,
  `${whole}-more`,
  whole.slice(1),
  `00-${trace}${span}--01`
])("no trace context: %s", (text) => {
  expect(isTraceparent(text)).toBe(false)
})
test("each character is a digit of hex or a dash where it belongs", () => {
  for (let at = 0; at < whole.length; at++) {
    const isDash = whole[at] === "-"
    for (const other of ["7", "f", "g", "F", "/", ":", "`", " ", "-", "é"]) {
      const text = whole.slice(0, at) + other + whole.slice(at + 1)
      const fits = isDash ? other === "-" : other === "7" || other === "f"
      expect([text, isTraceparent(text)]).toEqual([text, fits && !text.startsWith("ff")])
    }
  }
})
