// What text from events may do to a terminal: nothing.
import { describe, expect, test } from "vitest"
import { terminalLine, terminalText } from "../../../src/cli/terminal-text.ts"

describe("text for a terminal", () => {
  test.each([
    ["a colour", "\u001b[31mred", String.raw`\u001b[31mred`],
    ["a title", "\u001b]0;owned\u0007", String.raw`\u001b]0;owned\u0007`],
    ["an 8-bit control sequence", "\u009b2J", String.raw`\u009b2J`],
    ["a deletion", "a\u007f\u0008b", String.raw`a\u007f\u0008b`],
    ["a carriage return that hides a line", "bad\rgood", String.raw`bad\u000dgood`],
    ["reversed text", "\u202egnp.exe", String.raw`\u202egnp.exe`],
    ["an isolate", "\u2066x\u2069", String.raw`\u2066x\u2069`],
    ["NUL", "a\0b", String.raw`a\u0000b`],
    ["a line separator", "a\u2028b", String.raw`a\u2028b`],
    ["halves of surrogate pairs", "\ud83d \udc4b", String.raw`\ud83d \udc4b`]
  ])("%s is shown as its escape", (_, text, expected) => {
    expect(terminalText(text)).toBe(expected)
  })
  test("other text is unchanged: tabs, line feeds, accents, emoji with joiners, right-to-left letters", () => {
    const text = "a\tb\nÅngström 👨‍👩‍👧 שלום می‌خواهم"
    expect(terminalText(text)).toBe(text)
  })
  test("JSON keeps its meaning", () => {
    const value = { text: "\u001b[31m\u009b\u007f\u202e", half: "\ud800" }
    const text = terminalText(JSON.stringify(value))
    expect(text).toMatch(/^[\u0020-\u007e]*$/)
    expect(JSON.parse(text)).toEqual(value)
  })
  test("within a line, a value cannot begin another line or column", () => {
    expect(terminalLine("a\nERROR forged\tb")).toBe(String.raw`a\nERROR forged\tb`)
  })
})
