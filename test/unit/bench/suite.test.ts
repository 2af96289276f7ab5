// The suite of benchmarks: which it has, and the table that it makes.
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, test } from "vitest"
import { chosenFigures, isSameMachine, markdownOf, outputOf, suite } from "../../../bench/suite.ts"

const folder = join(import.meta.dirname, "../../../bench")

test("the suite has every benchmark, each once", () => {
  // a benchmark is started by its name alone; what only others import is listed in main.ts
  const main = readFileSync(join(folder, "main.ts"), "utf8")
  const shared = new Set([...main.matchAll(/^ {2}"([\w.-]+)",?$/gm)].map(([, name]) => name))
  const names = readdirSync(folder)
    .filter((file) => file.endsWith(".ts"))
    .map((file) => file.slice(0, -".ts".length))
    .filter((name) => name !== "all" && !shared.has(name))
  expect(suite.map(({ name }) => name).toSorted()).toEqual(names.toSorted())
})

describe("the output of a benchmark", () => {
  test("is the JSON that it printed, also over several lines", () => {
    expect(outputOf('{\n  "a": 1\n}\n')).toEqual({ a: 1 })
  })
  test("is the line that is JSON, or a list where several are", () => {
    expect(outputOf('starting\n{"a":1}\n')).toEqual({ a: 1 })
    expect(outputOf('{"a":1}\nwarm\n{"a":2}\n')).toEqual([{ a: 1 }, { a: 2 }])
    expect(outputOf("nothing\n")).toBeUndefined()
  })
  test("gives the figures that are asked for, by the last part of their path", () => {
    const output = [
      { part: "live", eventsPerSecond: 5, cpu: { total: 2 } },
      { part: "replay", eventsPerSecond: 7, rows: [1, 2] }
    ]
    expect(chosenFigures(output, ["eventsPerSecond", "total"])).toEqual([
      { path: "live.eventsPerSecond", value: 5 },
      { path: "live.cpu.total", value: 2 },
      { path: "replay.eventsPerSecond", value: 7 }
    ])
    expect(chosenFigures({ a: [3, 4] }, ["a.2"])).toEqual([{ path: "a.2", value: 4 }])
  })
})

const machine = {
  at: "2026-11-30",
  commit: "abc",
  node: "24.1.0",
  processor: "CPU",
  cores: 2,
  memoryGiB: 8,
  loadBefore: 0.1
}
const result = {
  commit: "abc",
  flags: ["--events", "10"],
  seconds: 61.4,
  coresOthers: 0,
  warning: undefined,
  exit: 0
}

test("the table has a row for each run, with what failed and what was not quiet", () => {
  const table = markdownOf(machine, [
    { ...result, name: "throughput", output: { eventsPerSecond: 45_123.4, peakMiB: 80.25, rows: 7 } },
    { ...result, name: "diff", flags: [], coresOthers: 1.2, warning: "not quiet", exit: 1, output: undefined }
  ])
  expect(table).toBe(`2026-11-30, commit abc, Node 24.1.0, 2 cores (CPU), 8 GiB, a load of 0.1 before.

| \`npm run bench -- …\` | figures | cores of others | seconds |
| --- | --- | --- | --- |
| \`throughput --events 10\` | eventsPerSecond 45,123; peakMiB 80.25 | 0 | 61 |
| \`diff\` | failed with 1 | 1.2 (not quiet) | 61 |
`)
})

test("the table of several runs has all results in the order of the suite, and each commit", () => {
  const continued = markdownOf({ ...machine, commit: "def" }, [
    { ...result, commit: "def", name: "diff", output: undefined },
    { ...result, name: "throughput", output: undefined }
  ])
  expect(continued).toMatch(/commit abc, def,[^]*`throughput[^]*`diff/)
})

test("figures of another machine are not those of this one, those of another day and commit are", () => {
  expect(isSameMachine(machine, { ...machine, at: "2026-12-01", commit: "def" })).toBe(true)
  expect(isSameMachine(machine, { ...machine, processor: "another" })).toBe(false)
})
