// Joining the moments of a benchmark with those that the process noted.
import { expect, test } from "vitest"
import { seenAlerts, stageNames, stagesOf } from "../../../bench/stages.ts"

test("an alert's stages add up to its time, by the ids that both sides have", () => {
  const alerts = seenAlerts("1-1 1000.000 1030.000\n1-2 2000.500 2010.500\n1-9 1.000 2.000\n")
  const recorded = [
    "1-1 1004 1005.000 1006.000 1007.000 1010.000 1025.000",
    "1-2 2001 2002.000 2003.000 2003.500 2006.000 2009.500",
    // of an event without an alert, and a line that is not whole
    "1-3 1 2 3 4 5 6",
    "1-9 1"
  ].join("\n")
  const stages = stagesOf(alerts, recorded)
  expect(stages.alerts).toBe(2)
  expect(stageNames.map((name) => stages[name].slowest)).toEqual([4, 1, 1, 1, 3, 15, 5])
  expect(stages.whole).toEqual({ p50: 30, p95: 30, p99: 30, slowest: 30 })
  expect(stages.stored.p50).toBe(4)
})

test("no stage is negative where clocks differ or a row is seen before its commit is answered", () => {
  const alerts = new Map([["a", { due: 100, seen: 110 }]])
  const stages = stagesOf(alerts, "a 99 103 104 104 106 115")
  expect(stageNames.map((name) => stages[name].p50)).toEqual([0, 3, 1, 0, 2, 4, 0])
  expect(stages.whole.p50).toBe(10)
})

test("without alerts there is nothing to tell", () => {
  expect(stagesOf(new Map(), "").whole).toEqual({ p50: 0, p95: 0, p99: 0, slowest: 0 })
})
