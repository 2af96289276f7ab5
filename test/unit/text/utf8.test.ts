// Bytes and text without loss, whatever either holds.
import { Buffer } from "node:buffer"
import { expect, test } from "vitest"
import { isStorable, shown, storable } from "../../../src/text/text.ts"
import { bytesOf, textOf } from "../../../src/text/utf8.ts"
import { randomOf, seed } from "../../support/random.ts"

const invalid: ReadonlyArray<readonly [string, ReadonlyArray<number>]> = [
  ["a byte that begins nothing", [0x61, 0xff, 0x62]],
  ["a byte that only continues", [0x80]],
  ["a character cut off at the end", [0x61, 0xe2, 0x82]],
  ["a character cut off by another", [0xe2, 0x82, 0x61]],
  ["an overlong slash", [0xc0, 0xaf]],
  ["an overlong character of three bytes", [0xe0, 0x80, 0xaf]],
  ["an overlong character of four bytes", [0xf0, 0x80, 0x80, 0xaf]],
  ["a code point beyond the last one", [0xf4, 0x90, 0x80, 0x80]],
  ["half a pair", [0xed, 0xa0, 0x80]],
  ["a pair as six bytes", [0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80]],
  ["a half that stands for a byte", [0xed, 0xb2, 0x80]],
  ["two first halves and a byte", [0xed, 0xa0, 0xa0, 0xed, 0xa0, 0xbf, 0xf4, 0x41]],
  ["Latin 1", [...Buffer.from("café", "latin1")]],
  ["bytes beside U+FFFD", [...Buffer.from("\ufffd"), 0xff]]
]

test.each(invalid)("%s becomes text that is not storable, and the same bytes again", (_, given) => {
  const text = textOf(Uint8Array.from(given))
  expect(isStorable(text)).toBe(false)
  expect([...bytesOf(text)]).toEqual(given)
  expect(isStorable(storable(text))).toBe(true)
})

test("valid UTF-8 is read as the platform reads it, U+FFFD and NUL included", () => {
  for (const text of ["", "a", "żółw 🐢", "\ufffd", "a\0b", "\ufeff{}"]) {
    const bytes = Buffer.from(text)
    expect(textOf(bytes)).toBe(text)
    expect(bytesOf(text).equals(bytes)).toBe(true)
  }
})

test(`random bytes come back (seed ${seed})`, () => {
  const random = randomOf(seed)
  const bytes = [0x00, 0x41, 0x7f, 0x80, 0xa0, 0xb2, 0xbf, 0xc3, 0xe2, 0xed, 0xef, 0xf0, 0xf4, 0xff]
  for (let i = 0; i < 20_000; i++) {
    const given = Buffer.from(Array.from({ length: random.int(0, 9) }, () => random.pick(bytes)))
    expect(bytesOf(textOf(given)).toString("hex")).toBe(given.toString("hex"))
  }
})

test("any value can be shown", () => {
  const cyclic: Record<string, unknown> = {}
  cyclic["self"] = cyclic
  for (const value of [{ toString: 1 }, Object.create(null), cyclic, 10n, Symbol("s"), undefined, () => 1, Number.NaN])
    expect(typeof shown(value)).toBe("string")
  expect(shown({ toString: 1 })).toBe('{"toString":1}')
  expect(shown("x".repeat(100))).toBe(`"${"x".repeat(59)}…`)
})
