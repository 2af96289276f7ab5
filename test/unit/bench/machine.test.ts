// What the benchmarks read of /proc, and when they warn that the machine was not quiet.
import { describe, expect, test } from "vitest"
import { busySeconds, busyWarning, byThread, ownSeconds, surroundings, threadsOf } from "../../../bench/machine.ts"

/** A line of /proc/PID/stat with these hundredths of a second. */
const statOf = (name: string, user: number, system: number, children = [0, 0]) =>
  `42 (${name}) S 1 42 42 0 -1 4194304 100 0 0 0 ${user} ${system} ${children.join(" ")} 20 0 12 0 5000 1 1`

describe("processor time", () => {
  test("the machine is busy while it neither idles nor waits for a disk", () => {
    // user nice system idle iowait irq softirq steal guest
    expect(busySeconds("cpu  100 20 30 99999 88888 4 5 6 7 8\ncpu0 1 2 3\n")).toBe(1.65)
  })
  test("a process's name may have spaces and parentheses", () => {
    expect(ownSeconds(statOf("a) S (b", 150, 50, [30, 20]), false)).toBe(2)
    expect(ownSeconds(statOf("a) S (b", 150, 50, [30, 20]), true)).toBe(2.5)
  })
  test("threads of node are counted by what they do", () => {
    const thread = (name: string, user: number) => ({ name, stat: statOf(name, user, 0) })
    const threads = [
      thread("MainThread", 300),
      thread("V8Worker", 20),
      thread("V8Worker", 30),
      thread("DelayedTaskSche", 1)
    ]
    expect(byThread([...threads, thread("libuv-worker", 10)])).toEqual({ main: 3, v8: 0.5, others: 0.01, libuv: 0.1 })
  })
  test("the harness's list of threads is sorted, and without those that did nothing", () => {
    const text =
      "projections/MainThread=4.00;relay/MainThread=1.50;projections/V8Worker=2.25;bash/bash=0.00;java/GC Thread=9.00"
    expect(Object.entries(threadsOf(text))).toEqual([
      ["java GC Thread", 9],
      ["projections main", 4],
      ["projections v8", 2.25],
      ["relay main", 1.5]
    ])
    expect(threadsOf("")).toEqual({})
  })
})

describe("a quiet machine", () => {
  const before = { at: 1_000, busy: 50, own: 10, load: 0.2 }
  test("what a benchmark and its children used does not count as others", () => {
    const found = surroundings(before, { at: 11_000, busy: 70.1, own: 30 }, 2)
    expect(found).toEqual({ cores: 2, loadBefore: 0.2, coresOthers: 0.01, warning: undefined })
  })
  test("more than 3 % of the cores for others is a warning that says how much", () => {
    const { coresOthers, warning } = surroundings(before, { at: 11_000, busy: 78, own: 30 }, 2)
    expect(coresOthers).toBe(0.8)
    expect(warning).toBe(
      "the machine was not quiet: other programs used 0.8 of 2 cores (40 %). Compare only what ran in turn, by processor time"
    )
  })
  test("the load before is a warning above half of the cores", () => {
    expect(busyWarning(0, 1, 2)).toBeUndefined()
    expect(busyWarning(0, 1.1, 2)).toBe(
      "the machine was not quiet: the load was 1.1 in the minute before. Compare only what ran in turn, by processor time"
    )
  })
  test("counters that moved less than this process's own are no negative use", () => {
    expect(surroundings(before, { at: 2_000, busy: 50.5, own: 11 }, 2).coresOthers).toBe(0)
  })
})
