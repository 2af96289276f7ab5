// The keys of `millrace dev`, without a terminal.
import { expect, test } from "vitest"
import { helpText, hotKeysOf, onLine } from "../../../src/cli/hot-keys.ts"

const make = () => {
  const seen: Array<string> = []
  const show = (line: string) => void seen.push(line)
  const keys = hotKeysOf(
    { flags: [], url: "http://127.0.0.1:7070", show },
    (...args) => void seen.push(args.join(" ")),
    (url) => void seen.push(url)
  )
  return { keys, seen, type: (line: string) => onLine(keys, line, show) }
}

test("a key runs the command that its help names", () => {
  const { keys, seen, type } = make()
  for (const line of ["s", " D ", "t", "o"]) type(line)
  expect(seen).toEqual(["status", "dlq list", "topics list", "http://127.0.0.1:7070"])
  for (const command of seen.slice(0, 3)) expect(helpText(keys)).toContain(`millrace ${command}\n`)
  type("h")
  expect(seen.at(-1)).toBe(helpText(keys))
})

test("what is no key, and names that every object has, get a hint, and an empty line nothing", () => {
  const { seen, type } = make()
  type("")
  type("   ")
  expect(seen).toEqual([])
  type("constructor")
  type("ss")
  expect(seen).toEqual(Array(2).fill("h + Enter lists what can be typed here"))
})
