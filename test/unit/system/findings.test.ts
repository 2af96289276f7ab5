// What the status makes of the facts: what is a problem and what a notice, who is missing, and what to do.
import { assert, describe, test } from "vitest"
import { type Facts, findingsOf, type PartitionFacts, type RelayFacts } from "../../../src/system/findings.ts"
import { durationText } from "../../../src/text/duration.ts"
import { withoutOldHalts } from "../../../src/system/status.ts"
import type { ProcessRow } from "../../../src/postgres/store/processes.ts"

const minute = 60_000
const partition: PartitionFacts = {
  name: "alerts",
  version: 1,
  declared: 1,
  topic: "events.v1",
  partition: 0,
  mode: "live",
  lag: 0,
  removed: false,
  halted: null,
  waiting: null,
  waiting_ms: null,
  claimed_by: "one",
  committed_ms: 1_000,
  oldest_ms: null
}
const relay: RelayFacts = { target: "kafka", lag: 0, oldest_ms: null, halted: null, moved_ms: null }
const running: ProcessRow = {
  id: "one",
  host: "a",
  pid: 7,
  roles: ["projections", "relay"],
  projections: ["alerts_v1"],
  declares: ["alerts_v1"],
  targets: ["kafka"],
  failing: [],
  startedMs: 3_600_000,
  seenMs: 2_000
}
const facts: Facts = {
  maxAgeMs: minute,
  partitions: [partition],
  relays: [relay],
  configured: ["kafka"],
  processes: [running],
  subscriptions: [],
  unpublished: [],
  gates: [],
  embeddedDir: undefined
}
const late = { lag: 5, oldest_ms: 5 * minute, committed_ms: 10 * minute }
const kinds = (given: Partial<Facts>) => {
  const { notices, problems } = findingsOf({ ...facts, ...given })
  const named = (list: typeof problems) => list.map(({ kind, what }) => `${kind}: ${what}`)
  return { problems: named(problems), notices: named(notices) }
}
const first = (given: Partial<Facts>) => findingsOf({ ...facts, ...given }).problems[0]!

describe("the age decides, not the number", () => {
  test("nothing waits: healthy, without a word", () => assert.deepEqual(kinds({}), { problems: [], notices: [] }))
  test("a million records that wait for seconds are healthy; a single one that waits for minutes is not", () => {
    const many = { ...partition, lag: 1_000_000, oldest_ms: 5_000 }
    assert.deepEqual(kinds({ partitions: [many] }).problems, [])
    const one = { ...partition, lag: 1, oldest_ms: minute + 1 }
    assert.deepEqual(kinds({ partitions: [one] }).problems, ["behind: projection alerts v1"])
    assert.deepEqual(kinds({ relays: [{ ...relay, lag: 1_000_000, oldest_ms: 5_000 }] }).problems, [])
    assert.deepEqual(kinds({ relays: [{ ...relay, lag: 1, oldest_ms: minute + 1, moved_ms: 5 }] }).problems, [
      "behind: relay to kafka"
    ])
  })
  test("the threshold is the given one", () =>
    assert.deepEqual(kinds({ maxAgeMs: 10 * minute, partitions: [{ ...partition, ...late }] }).problems, []))
})

test("a removed projection is noted and not a problem; while the configuration has another version, it is still judged", () => {
  const gone = { ...partition, ...late, removed: true }
  assert.deepEqual(kinds({ partitions: [gone] }), { problems: [], notices: ["removed: projection alerts v1"] })
  const { notices, problems } = kinds({
    partitions: [gone, { ...partition, version: 2, declared: 2, mode: "follower" }]
  })
  assert.lengthOf(problems, 1)
  assert.include(problems[0], "projection alerts v1")
  assert.deepEqual(notices, ["removed: projection alerts v1"])
})

test("a build of a removed version is named by its number and its version, and the advice for it can help", () => {
  // version 1 had builds 1 and 2, and version 2 was promoted as build 3
  const live = { ...partition, version: 3, declared: 2 }
  const gone = { ...partition, ...late, version: 2, declared: 1, mode: "follower", removed: true }
  const processes = [{ ...running, projections: ["alerts_v3"] }]
  assert.deepEqual(findingsOf({ ...facts, partitions: [gone, live], processes }), {
    problems: [],
    notices: [
      {
        kind: "removed",
        what: "projection alerts build 2 (version 1)",
        message:
          "the configuration no longer has version 1, so no process runs build 2; readers see build 3 of version 2",
        try: "if nobody needs it for a rollback, end build 2: millrace retire alerts 2; to let it follow again, put version 1 back"
      }
    ]
  })
  // readers still see the build whose code is gone
  const [problem] = findingsOf({
    ...facts,
    partitions: [
      { ...gone, mode: "live" },
      { ...live, mode: "follower" }
    ],
    processes
  }).problems
  assert.strictEqual(problem!.try, "put version 1 back, or let another build take its place: millrace promote alerts")
})

describe("a relay whose target is away", () => {
  const waiting = {
    what: "waiting stream of the relay to kafka",
    reason: "alerts events.v1/0 waits: no answer",
    sinceMs: 9_000
  }
  const processes = [{ ...running, failing: [waiting] }]
  test("is tried again: a note while it is younger than the threshold, then a problem", () => {
    assert.deepEqual(kinds({ processes }), { problems: [], notices: ["trying_again: relay to kafka"] })
    assert.deepEqual(kinds({ processes, maxAgeMs: 8_000 }), { problems: ["trying_again: relay to kafka"], notices: [] })
    assert.deepEqual(kinds({ processes, relays: [{ ...relay, lag: 1, oldest_ms: 2 * minute }] }).problems, [
      "trying_again: relay to kafka"
    ])
  })
  test("does not hide a stream that needs a person", () =>
    assert.deepEqual(kinds({ processes, relays: [{ ...relay, halted: "a gap" }] }), {
      problems: ["needs_a_person: relay to kafka"],
      notices: []
    }))
  test("no longer shows recorded halts once every process that runs it fails to; where one works, they count", () => {
    const failing = [{ what: "relay to kafka", reason: "the client cannot be loaded", sinceMs: 1_000 }]
    const halted = { ...relay, halted: "an earlier reason", halted_streams: 2 }
    const ended = { ...running, failing }
    const none = { ...halted, halted: null, halted_streams: 0 }
    assert.deepEqual(withoutOldHalts(halted, [ended, { ...ended, id: "two" }]), none)
    assert.deepEqual(withoutOldHalts(halted, [ended, { ...running, seenMs: minute }]), none)
    for (const others of [[], [running], [ended, running], [{ ...ended, targets: ["pulsar"] }], processes])
      assert.deepEqual(withoutOldHalts(halted, others), halted)
  })
})

describe("advice on an embedded database, which belongs to one process, can be followed", () => {
  const embedded = { ...facts, embeddedDir: "my data/it's" }
  const flag = String.raw`--data 'my data/it'\''s'`
  const stop = (who: string) =>
    `stop process 7 on a${who}, because an embedded database belongs to one process; then start all roles: millrace start ${flag}`
  const advice = (given: Partial<Facts>) => {
    const { notices, problems } = findingsOf({ ...embedded, ...given })
    return [...problems, ...notices].map((one) => one.try)
  }
  const noRoles = { ...running, projections: [], targets: [], roles: ["gateway"] }
  const oldMessages = { ...relay, lag: 1, oldest_ms: 5 * minute }
  test("a projection or a relay that no process runs: the process that runs must be stopped first", () => {
    assert.deepEqual(advice({ processes: [noRoles], partitions: [{ ...partition, ...late }], relays: [oldMessages] }), [
      stop(""),
      stop("")
    ])
  })
  test("partitions that no process holds", () =>
    assert.deepEqual(advice({ partitions: [{ ...partition, ...late, claimed_by: null }] }), [stop("")]))
  test("a process that was last seen a while ago may still run; without any the command alone is enough", () => {
    const partitions = [{ ...partition, ...late }]
    const start = `millrace start ${flag}, or millrace dev ${flag}`
    assert.deepEqual(advice({ processes: [{ ...running, seenMs: minute }], partitions }), [
      start,
      stop(" if it still runs")
    ])
    assert.deepEqual(advice({ processes: [], partitions }), [start, `millrace start ${flag}`])
  })
  test("more processes are no advice", () =>
    assert.deepEqual(advice({ partitions: [{ ...partition, ...late, committed_ms: 1 }] }), [
      "wait; more processes need a PostgreSQL server, see MILLRACE_DATABASE_URL"
    ]))
  test("retire and sql name the directory; the default one needs no flag", () => {
    const partitions = [{ ...partition, removed: true }]
    assert.deepEqual(advice({ partitions, relays: [{ ...oldMessages, target: "pulsar" }] }), [
      `put it back, or end it: millrace retire ${flag} alerts 1`,
      `configure it and start a relay; or, if it was given up: millrace sql ${flag} --write "delete from millrace.relay_position where target = 'pulsar'"`
    ])
    assert.deepEqual(advice({ partitions, embeddedDir: ".millrace" }), [
      "put it back, or end it: millrace retire alerts 1"
    ])
  })
})

describe("who is missing", () => {
  test("a relay that no process runs is named, with what waits and the role to start", () => {
    const processes = [{ ...running, targets: [], roles: ["projections"] }]
    const relays = [{ ...relay, lag: 92_866, oldest_ms: 125 * minute }]
    assert.deepEqual(findingsOf({ ...facts, processes, relays }).problems, [
      {
        kind: "not_running",
        what: "relay to kafka",
        message: "no process runs it; 92866 messages wait, the oldest for 2 h 5 min",
        try: "millrace start --roles relay"
      }
    ])
  })
  test("a process that died is named with when it was last seen", () => {
    const processes = [
      { ...running, id: "two", pid: 8, projections: [] },
      { ...running, seenMs: 3 * minute }
    ]
    const { message } = first({ processes, partitions: [{ ...partition, ...late }], relays: [] })
    assert.strictEqual(
      message,
      "no process runs it; process 7 on a did, and was last seen 3 min ago; 5 records of events.v1 wait, the oldest for 5 min"
    )
  })
  test("partitions that no running process has claimed are named, although the projection runs", () => {
    const partitions = [
      { ...partition, ...late, partition: 3, claimed_by: "gone" },
      { ...partition, ...late, partition: 1, claimed_by: null }
    ]
    assert.match(first({ partitions }).message, /^no process holds partitions 1, 3 of events\.v1; 10 records/)
  })
  test("partitions that a process which has just started has not claimed yet are only noted, for 10 seconds", () => {
    const partitions = [{ ...partition, ...late, claimed_by: "gone" }]
    const after = (startedMs: number) => ({ partitions, processes: [{ ...running, startedMs }] })
    assert.deepEqual(kinds(after(10_000)).problems, ["not_running: projection alerts v1"])
    const { notices, problems } = findingsOf({ ...facts, ...after(1_000) })
    assert.deepEqual(problems, [])
    assert.deepEqual(notices, [
      {
        kind: "not_running",
        what: "projection alerts v1",
        message:
          "process 7 on a started 1 s ago and has not claimed partition 0 of events.v1 yet; 5 records of events.v1 wait, the oldest for 5 min",
        try: null
      }
    ])
    // one that runs something else claims none of them
    const other = { ...running, id: "two", projections: [], startedMs: 1_000 }
    assert.deepEqual(kinds({ partitions, processes: [running, other] }).problems, ["not_running: projection alerts v1"])
  })
  test("a process that has just claimed what waited while nothing ran is behind and not stuck", () => {
    const partitions = [{ ...partition, ...late }]
    const after = (startedMs: number) => kinds({ partitions, processes: [{ ...running, startedMs }] }).problems
    assert.deepEqual([after(1_000), after(10_000)], [["behind: projection alerts v1"], ["stuck: projection alerts v1"]])
  })
  test("without any process waiting work is a problem at once, and no work is only noted", () => {
    assert.deepEqual(kinds({ processes: [], partitions: [{ ...partition, lag: 1, oldest_ms: 10 }] }), {
      problems: ["nothing_runs: system"],
      notices: []
    })
    assert.deepEqual(kinds({ processes: [] }), { problems: [], notices: ["nothing_runs: system"] })
  })
  test("a topic that no relay publishes and a subscription without a consumer are noted", () => {
    const subscription = { topic: "t", subscription: "s", undelivered: 4, unacknowledged: 0, consumed: false }
    const given = { unpublished: ["alerts.v1"], subscriptions: [subscription, { ...subscription, consumed: true }] }
    assert.deepEqual(kinds(given), {
      problems: [],
      notices: ["not_published: topic alerts.v1", "no_consumer: subscription s of t"]
    })
  })
  test("a gate that stays open is noted with who keeps it", () => {
    const holder = { kind: "session", pid: 7, user: "reader", name: "psql", sinceMs: 12_000 } as const
    const { notices, problems } = findingsOf({ ...facts, gates: [{ projection: "orders", holders: [holder] }] })
    assert.deepEqual(problems, [])
    assert.deepEqual(notices, [
      {
        kind: "gate_open",
        what: "projection orders",
        message:
          "its views are a gate between two builds, because transactions from before the promotion may still read the old one: session 7 of reader (psql) for 12 s",
        try: "nothing, or end these transactions: running processes then close the gate"
      }
    ])
  })
  test("a gate that cannot be closed is noted with the reason", () => {
    const gate = { projection: "orders", holders: [], refusal: "public.orders exists" }
    assert.deepInclude(findingsOf({ ...facts, gates: [gate] }).notices[0], {
      kind: "gate_open",
      message: "its views are a gate between two builds, which cannot be closed: public.orders exists",
      try: "remove the cause: running processes then close the gate"
    })
  })
  test("a target that is not configured and that no process runs is noted as long as something waits for it", () => {
    const gone = { ...relay, target: "pulsar", lag: 9, oldest_ms: 10 * minute }
    assert.deepEqual(kinds({ relays: [gone] }), { problems: [], notices: ["not_running: relay to pulsar"] })
    const runs = [{ ...running, targets: ["kafka", "pulsar"] }]
    assert.deepEqual(kinds({ relays: [gone], processes: runs }).problems, ["stuck: relay to pulsar"])
  })
})

describe("why work waits", () => {
  test("a follower that waits for a live build without a process is not stuck, and the live build is named", () => {
    const live = { ...partition, ...late, claimed_by: null }
    const follower = { ...partition, ...late, version: 2, declared: 2, mode: "follower" }
    const processes = [{ ...running, projections: ["alerts_v2"] }]
    assert.deepEqual(kinds({ partitions: [live, follower], processes }), {
      problems: ["not_running: projection alerts v1"],
      notices: []
    })
    // one that is behind the live build is
    const behind = { ...follower, lag: 6 }
    assert.deepEqual(kinds({ partitions: [live, behind], processes }).notices, [
      "stuck: projection alerts v2 (follower)"
    ])
  })
  test("a process that holds a partition and commits nothing is named as stuck", () => {
    const { kind, message } = first({ partitions: [{ ...partition, ...late }] })
    assert.strictEqual(kind, "stuck")
    assert.match(message, /^process 7 on a holds partition 0 of events\.v1 and has committed nothing for 10 min: /)
  })
  test("what is tried again has the reason and since when, and is a problem only once it lasts", () => {
    const failing = (sinceMs: number) => [
      { ...running, failing: [{ what: "projection alerts_v1 events.v1/0", reason: "no broker answers", sinceMs }] }
    ]
    const one = { ...partition, lag: 5, oldest_ms: 5_000 }
    assert.deepEqual(kinds({ partitions: [one], processes: failing(5_000) }), {
      problems: [],
      notices: ["trying_again: projection alerts v1"]
    })
    const { kind, message } = first({ partitions: [{ ...one, ...late }], processes: failing(2 * minute) })
    assert.strictEqual(kind, "trying_again")
    assert.strictEqual(
      message,
      "partition 0 of events.v1 fails for 2 min and is tried again: no broker answers; 5 records of events.v1 wait, the oldest for 5 min"
    )
  })
  test("a relay that fails is tried again, with the reason", () => {
    const processes = [{ ...running, failing: [{ what: "relay to kafka", reason: "refused", sinceMs: 90_000 }] }]
    const { kind, message } = first({ processes, relays: [{ ...relay, lag: 2, oldest_ms: 90_000 }] })
    assert.strictEqual(kind, "trying_again")
    assert.strictEqual(message, "it fails for 1 min 30 s and is tried again: refused; 2 messages wait")
  })
  test("what is halted needs a person, at once, with the command that continues it; one reason is said once", () => {
    const halted = { ...partition, halted: "the topic was recreated" }
    const { problems } = findingsOf({ ...facts, partitions: [halted, { ...halted, partition: 1 }] })
    assert.strictEqual(problems.length, 1)
    assert.strictEqual(problems[0]!.kind, "needs_a_person")
    assert.strictEqual(problems[0]!.message, "partitions 0, 1 of events.v1 halted: the topic was recreated")
    assert.match(problems[0]!.try!, /restart the process/)
    assert.deepEqual(kinds({ relays: [{ ...relay, halted: "a gap" }] }).problems, ["needs_a_person: relay to kafka"])
  })
  test("what a partition waits for comes from its row, unless no process runs that could try again", () => {
    const waiting = { ...partition, ...late, waiting: "the disk is full", waiting_ms: 2 * minute }
    const { kind, message } = first({ partitions: [waiting] })
    assert.strictEqual(kind, "trying_again")
    assert.match(message, /^partition 0 of events\.v1 fails for 2 min and is tried again: the disk is full; 5 records/)
    assert.strictEqual(
      first({ partitions: [waiting], processes: [{ ...running, projections: [] }] }).kind,
      "not_running"
    )
  })
})

test("a follower is noted with the same reasons and never makes the system unhealthy", () => {
  const follower = { ...partition, version: 2, declared: 2, mode: "follower" }
  const partitions = [
    { ...follower, ...late },
    { ...follower, topic: "others.v1", halted: "x" }
  ]
  assert.deepEqual(kinds({ partitions: [partition, ...partitions] }), {
    problems: [],
    notices: ["not_running: projection alerts v2 (follower)", "needs_a_person: projection alerts v2 (follower)"]
  })
})

test("durations are readable", () =>
  assert.deepEqual([-5, 0, 59_400, 60_000, 61_000, 3_600_000, 90_000_000, 86_400_000].map(durationText), [
    "0 s",
    "0 s",
    "59 s",
    "1 min",
    "1 min 1 s",
    "1 h",
    "1 d 1 h",
    "1 d"
  ]))

test("a rebuild that a person paused or limited is named as the cause, not a handler", () => {
  const late = {
    ...partition,
    version: 2,
    declared: 2,
    mode: "follower",
    lag: 5,
    oldest_ms: 10 * minute,
    committed_ms: 9 * minute
  }
  const of = (held: string) =>
    findingsOf({
      ...facts,
      partitions: [late],
      processes: [{ ...running, projections: ["alerts_v2"] }],
      held: new Map([["alerts_v2", held]])
    }).notices.map(({ kind, message, try: advice }) => [kind, message, advice])
  assert.deepStrictEqual(of("is paused"), [
    [
      "behind",
      "its rebuild is paused; 5 records of events.v1 wait, the oldest for 10 min",
      "millrace rebuild alerts --resume"
    ]
  ])
  assert.include(
    of("waits: live lag 8 s is above --max-live-lag 3 s")[0]![1],
    "its rebuild waits: live lag 8 s is above"
  )
})

test("a paused projection is named with the command that resumes it; it is a problem once a record has waited for too long", () => {
  const paused = new Map([["alerts", 3 * minute]])
  assert.deepEqual(kinds({ paused }), { problems: [], notices: ["paused: projection alerts v1"] })
  const waits = { paused, partitions: [{ ...partition, ...late }] }
  assert.deepEqual(kinds(waits), { problems: ["paused: projection alerts v1"], notices: [] })
  assert.deepInclude(first(waits), {
    message: "it has been paused for 3 min; 5 records of events.v1 wait, the oldest for 5 min",
    try: "millrace resume alerts"
  })
  const follows = { paused, partitions: [{ ...partition, mode: "follower" }] }
  assert.deepEqual(kinds(follows), { problems: [], notices: [] })
})
