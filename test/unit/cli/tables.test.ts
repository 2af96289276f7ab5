// How commands print things for people.
import { assert, test } from "vitest"
import { statusTable, tableOf } from "../../../src/cli/tables.ts"
import type { Status } from "../../../src/system/status.ts"

const status: Status = {
  healthy: true,
  problems: [],
  notices: [],
  max_age_ms: 60_000,
  projections: [],
  relays: [{ target: "pulsar", lag: 0, oldest_ms: null, halted: null, halted_streams: 0, moved_ms: null }],
  follower_dead_letters: 0,
  timers: { waiting: 0, due: 0, oldest_ms: null, failing: 0 },
  dead_letters: 0,
  parked_messages: 0,
  builds: [],
  paused: [],
  subscriptions: [],
  delays: { projections: [], relays: [] },
  processes: []
}

test("the status counts dead letters of projections and of relays, and names the command that lists them", () => {
  assert.include(
    statusTable({ ...status, follower_dead_letters: 0, dead_letters: 2, parked_messages: 3 }),
    "\nrelay to pulsar: 0 messages behind\ndead letters of projections: 2, of relays: 3; millrace dlq list shows them\nhealthy"
  )
  assert.include(statusTable(status), "\ndead letters of projections: 0, of relays: 0\nhealthy")
})
test("the status ends with each problem and note, what to do about it, and whether the system is healthy", () => {
  const [relay] = status.relays
  const text = statusTable({
    ...status,
    healthy: false,
    relays: [{ ...relay!, lag: 92_866, oldest_ms: 7_500_000 }],
    problems: [{ kind: "not_running", what: "relay to pulsar", message: "no process runs it", try: "millrace start" }],
    notices: [{ kind: "behind", what: "projection a v2 (follower)", message: "1 record waits", try: null }]
  })
  assert.include(text, "relay to pulsar: 92866 messages behind, the oldest for 2 h 5 min\n")
  assert.include(
    text,
    "\nproblem: relay to pulsar: no process runs it\n  try: millrace start\nnote: projection a v2 (follower): 1 record waits\nnot healthy"
  )
})
test("the status lists the processes, when one that died was last seen, and what they try again", () => {
  const one = { id: "1", host: "a", pid: 7, roles: ["relay"], projections: [], relays: ["kafka"], started_ms: 1 }
  const failing = [{ what: "relay to kafka", reason: "no broker answers", since_ms: 61_000 }]
  const text = statusTable({
    ...status,
    processes: [
      { ...one, seen_ms: 900, running: true, failing },
      { ...one, pid: 8, seen_ms: 120_000, running: false, failing: [] }
    ]
  })
  assert.include(
    text,
    "process 7 on a: relay, running\n  tries again for 1 min 1 s: relay to kafka: no broker answers\nprocess 8 on a: relay, last seen 2 min ago\n"
  )
})

test("control characters of values are escapes in tables, and the table adds none", () => {
  const escape = "\u001b"
  const text = tableOf(
    ["plain", `head${escape}[32m`],
    [
      [`a${escape}[31mred`, `${escape}[1mbold`],
      [`x${escape}[4mline\u009b7m`, `${escape}]0;title\u0007`],
      [null, 5]
    ]
  )
  assert.notInclude(text, escape)
  for (const cell of [
    "a\\u001b[31mred ",
    "\\u001b[1mbold ",
    "x\\u001b[4mline\\u009b7m ",
    "\\u001b]0;title\\u0007 ",
    "head\\u001b[32m "
  ])
    assert.include(text, `│ ${cell}`)
})
const partitionOf = (change: object) =>
  ({
    name: "a",
    version: 1,
    declared: 1,
    topic: "t",
    partition: 0,
    position: 5,
    end: 5,
    lag: 0,
    oldest_ms: null,
    epoch: 1,
    mode: "live",
    stream_time: null,
    removed: false,
    halted: null,
    waiting: null,
    claimed_by: "p1",
    ...change
  }) as unknown as Status["projections"][number]
test("control characters in the status are escapes, also in the table of partitions", () => {
  const one = partitionOf({ name: "a\u001b[31m" })
  const text = statusTable({ ...status, projections: [one, { ...one, name: "b", version: 3, declared: 2 }] })
  assert.notInclude(text, "\u001b")
  assert.include(text, "│ a\\u001b[31m v1 ")
  // the number of the build is named where it is not the version
  assert.include(text, "│ b v2 build 3 ")
})

const sixteen = Array.from({ length: 16 }, (_, partition) => partitionOf({ partition }))
const rowsOf = (projections: Status["projections"], options = {}) =>
  statusTable({ ...status, projections }, options)
    .split("\n")
    .filter((line) => line.startsWith("│"))
    .slice(1)
    .map((line) =>
      line
        .split("│")
        .slice(2, -1)
        .map((cell) => cell.trim())
        .join("|")
    )
test("the partitions of a projection and topic that are up to date share a row of the status, with totals", () => {
  const partitions = [...sixteen, partitionOf({ topic: "u" }), partitionOf({ name: "b" }), partitionOf({ version: 2 })]
  assert.deepStrictEqual(rowsOf(partitions), [
    "t/0-15|80|80|0||1||live",
    "u/0|5|5|0||1||live",
    "t/0|5|5|0||1||live",
    "t/0|5|5|0||1||live"
  ])
  const [first, second] = sixteen
  assert.deepStrictEqual(
    rowsOf([
      { ...first!, stream_time: 1_000 },
      { ...second!, epoch: 4 }
    ]),
    ["t/0-1|10|10|0||1-4|1970-01-01T00:00:01.000Z|live"]
  )
})
test("a partition with a lag, that is halted or waits, or is claimed by another process has a row of its own", () => {
  const changed = new Map<number, object>([
    [2, { lag: 3, position: 2, oldest_ms: 1000 }],
    [3, { halted: "poison" }],
    [7, { waiting: "the lookup topic" }],
    [9, { claimed_by: "p2" }],
    [10, { claimed_by: "p2" }],
    [15, { claimed_by: null }]
  ])
  const partitions = sixteen.map((one) => ({ ...one, ...changed.get(one.partition) }))
  assert.deepStrictEqual(rowsOf(partitions), [
    "t/0-1,4-6,8,11-14|50|50|0||1||live",
    "t/2|2|5|3|1 s|1||live",
    "t/3|5|5|0||1||poison",
    "t/7|5|5|0||1||live",
    "t/9-10|10|10|0||1||live",
    "t/15|5|5|0||1||live"
  ])
})
test("with all partitions, the status has a row for each", () => {
  assert.lengthOf(rowsOf(sixteen, { allPartitions: true }), 16)
})
