// How the console writes texts, numbers and words of a shell.
import { execFileSync } from "node:child_process"
import { join } from "node:path"
import { expect, test } from "vitest"
import { hostileTexts } from "../../support/browser/hostile.ts"

interface Format {
  readonly dataNumber: (value: unknown) => string
  readonly dataText: (text: string) => string
  readonly instantOf: (text: string) => string
  readonly counted: (count: number, noun: string, many?: string) => string
  readonly number: (value: unknown) => string
  readonly positionsText: (from: number, end: number) => string
  readonly shellWord: (text: string) => string
  readonly visible: (text: string) => string
}
// modules of the page have no types
const { counted, dataNumber, dataText, instantOf, number, positionsText, shellWord, visible } = (await import(
  join(import.meta.dirname, "../../../src/console/lib/format.js")
)) as Format

test("characters that are not seen, or that turn the text around them, are shown by their code; emoji and scripts stay", () => {
  expect(visible("a\u001b[31m b\u202egnp.exe c\u0000 d\u200be f\u{e0041}\u0085")).toBe(
    "a\\u001b[31m b\\u202egnp.exe c\\u0000 d\\u200be f\\u{e0041}\\u0085"
  )
  for (const text of ["👨‍👩‍👧‍👦 🏳️‍🌈", "é́́ مرحبا नमस्ते 你好", "a\tb\nc"]) expect(visible(text)).toBe(text)
})

test("of a very long text the beginning is shown, with how much there is", () => {
  expect(visible("x".repeat(1_000_000))).toMatch(/^x{100000}… \(the first 100,000 of 1,000,000 characters\)$/)
})

test("a word of a shell is what it was when a shell has read it, and has nothing that a terminal acts on", () => {
  for (const text of [...Object.values(hostileTexts), "it's \\n \\ \n two lines\u001b[2J", "plain-word_1", ""]) {
    const word = shellWord(text)
    expect(execFileSync("bash", ["-c", `printf %s ${word}`]).toString()).toBe(text)
    expect(visible(word)).toBe(word)
  }
})

test("numbers are written for people, and huge ones shortly", () => {
  expect([1_234_567, 0.123456, 42, 1.7e308, null, undefined].map(number)).toEqual([
    "1,234,567",
    "0.123",
    "42",
    "1.7e+308",
    "–",
    "–"
  ])
})

test("a time that was copied from a page is sent as the instant that it names, in the zone of the page or in UTC", () => {
  const storage = { getItem: () => "0" }
  Object.assign(globalThis, { localStorage: storage })
  const local = new Date(2026, 10, 30, 12, 20)
  expect(instantOf("2026-11-30 12:20:00.000")).toBe(local.toISOString())
  expect(instantOf(" 2026-11-30T12:20 ")).toBe(local.toISOString())
  expect(instantOf("2026-11-30")).toBe(new Date(2026, 10, 30).toISOString())
  expect(instantOf("2026-11-30 12:20:00.000 UTC")).toBe("2026-11-30T12:20:00.000Z")
  Object.assign(storage, { getItem: () => "1" })
  expect(instantOf("2026-11-30 12:20:00.000")).toBe("2026-11-30T12:20:00.000Z")
  for (const text of ["1796041842504", "yesterday", "2026-13-45 00:00", "2026-11-30T12:20:00+01:00"])
    expect(instantOf(text)).toBe(text)
})

test("positions are written with the last one of them, not with the one after it", () => {
  expect([positionsText(0, 38), positionsText(37, 38), positionsText(38, 38), positionsText(1_000, 2_864)]).toEqual([
    "0 to 37",
    "37",
    "none",
    "1,000 to 2,863"
  ])
})

test("a count has the plural of its noun", () => {
  const timers = (count: number) => counted(count, "timer or command", "timers and commands")
  expect([counted(1, "record"), counted(1_200, "record"), timers(1), timers(2)]).toEqual([
    "1 record",
    "1,200 records",
    "1 timer or command",
    "2 timers and commands"
  ])
})

test("data is written so that it is seen: keys with spaces at their ends, of several lines or empty, and numbers without their rounding", () => {
  expect(["", " a", "a ", "a  b", "a\nb", '"a"', "a b", "a/b%20"].map(dataText)).toEqual([
    '""',
    '" a"',
    '"a "',
    '"a  b"',
    String.raw`"a\nb"`,
    String.raw`"\"a\""`,
    "a b",
    "a/b%20"
  ])
  expect([80.60000000000001, 0.1 + 0.2, 1234567.891, 1e21, null, "12345678901234567890"].map(dataNumber)).toEqual([
    "80.6",
    "0.3",
    "1234567.891",
    "1e+21",
    "–",
    "12345678901234567890"
  ])
})
