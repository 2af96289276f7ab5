// Which processes the status lists: those that run, and of the dead ones those that are missed.
import { expect, test } from "vitest"
import { missedOrRunning } from "../../../src/system/status.ts"

const minute = 60_000
const running = { projections: ["p_v1"], roles: ["projections"], targets: [] as ReadonlyArray<string> }
const processOf = (id: string, seenMs: number, more: Partial<typeof running> = {}) => ({
  id,
  host: "here",
  pid: 1,
  startedMs: 60 * minute,
  seenMs,
  declares: [],
  failing: [],
  ...running,
  ...more
})
const partition = (claimed_by: string | null) => ({ name: "p", version: 1, claimed_by })

test("a dead process is listed if it holds partitions, or was the last that did what no process does now", () => {
  const processes = [
    processOf("alive", 0),
    processOf("replaced", minute),
    processOf("holder", 2 * minute),
    processOf("relay", 3 * minute, { roles: ["relay"], projections: [], targets: ["kafka"] }),
    processOf("earlier relay", 4 * minute, { roles: ["relay"], projections: [], targets: ["kafka"] }),
    processOf("retired", 5 * minute, { projections: ["p_v1", "p_v2"] })
  ]
  const found = missedOrRunning(processes, [partition("alive"), partition("holder"), partition(null)])
  expect(found.map(({ id }) => id)).toEqual(["alive", "holder", "relay"])
  expect(missedOrRunning(processes.slice(1), []).map(({ id }) => id)).toEqual(["replaced", "relay"])
})
