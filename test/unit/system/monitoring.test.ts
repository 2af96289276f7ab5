// Readiness by role, readings that callers share, what a process tries again, and the reference of metrics.
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it, test } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import { formatUnsafe } from "effect/observability/PrometheusMetrics"
import { commandsSubject, OngoingFailures, projectionSubject } from "../../../src/monitor/ongoing-failures.ts"
import { measuredRelay, measuredStore } from "../../../src/system/measured.ts"
import { RelayError, type RelayTarget } from "../../../src/relay/target.ts"
import { systemMetricsText } from "../../../src/system/metrics.ts"
import { Presence } from "../../../src/system/presence.ts"
import { type ProcessFacts, readinessOf } from "../../../src/system/readiness.ts"
import { makeSharedReading } from "../../../src/system/shared-reading.ts"
import type { Status } from "../../../src/system/status.ts"

const facts: ProcessFacts = {
  roles: ["gateway", "projections", "relay", "api"],
  running: ["projections", "relay"],
  failing: [],
  databaseMs: 5_000,
  log: { failure: undefined }
}
/** The reasons of the roles that are not ready. */
const reasons = (given: Partial<ProcessFacts>) => {
  const { ready, roles } = readinessOf({ ...facts, ...given })
  const found = Object.entries(roles).flatMap(([role, { reason }]) => (reason === undefined ? [] : [[role, reason]]))
  assert.strictEqual(ready, found.length === 0)
  return Object.fromEntries(found) as Readonly<Record<string, string>>
}
describe("readiness", () => {
  test("a process whose parts all answer is ready", () => assert.deepEqual(reasons({}), {}))
  test("only what needs the log is unready while the log is away", () =>
    assert.deepEqual(reasons({ log: { failure: "no broker answers" } }), {
      gateway: "the log does not answer: no broker answers",
      api: "the log does not answer: no broker answers"
    }))
  test("projections and relays are unready while the database fails, or hangs", () => {
    const failing = [{ what: "database", reason: "connection refused", sinceMs: 0 }]
    const reason = "the database does not answer: connection refused"
    assert.deepEqual(reasons({ failing }), { projections: reason, relay: reason })
    assert.deepEqual(reasons({ roles: ["gateway"], failing }), {})
    assert.deepEqual(reasons({ databaseMs: 20_000 })["relay"], "the database has not answered for 20 s")
  })
  test("a failure counts once it lasts, and only for the role that it is of", () => {
    const failing = (sinceMs: number) => [
      { what: "projection a_v1 t/0", reason: "no", sinceMs },
      { what: "stream of the relay to kafka", reason: "a is halted", sinceMs: 0 }
    ]
    assert.deepEqual(reasons({ failing: failing(1_000) }), {})
    assert.deepEqual(reasons({ failing: failing(60_000) }), {
      projections: "projection a_v1 t/0 fails for 1 min: no"
    })
  })
  test("a gateway that has to refuse commands of an aggregate is unready at once", () => {
    const failing = [{ what: commandsSubject("account"), reason: "other code is needed", sinceMs: 0 }]
    assert.deepEqual(reasons({ failing }), { gateway: "other code is needed" })
  })
  test("a role whose loop does not run is unready", () =>
    assert.deepEqual(reasons({ running: ["relay"] }), { projections: "it is starting or stopping" }))
})

describe("ongoing failures", () => {
  test("one failure keeps when it began, and ends with a success, or when it is not repeated", () => {
    let now = 0
    const failures = new OngoingFailures(() => now)
    failures.report("a", "first")
    now = 20_000
    failures.report("a", "a: second")
    failures.report("b", "slow", 60_000)
    assert.deepEqual(failures.list, [
      { what: "a", reason: "second", sinceMs: 20_000 },
      { what: "b", reason: "slow", sinceMs: 0 }
    ])
    now = 60_000
    assert.deepEqual(
      failures.list.map(({ what }) => what),
      ["b"]
    )
    failures.clear("b")
    assert.deepEqual(failures.list, [])
  })
  test("have reasons that a database can store, whatever an error says and wherever it is cut", () => {
    const failures = new OngoingFailures(() => 0)
    failures.report("nul", "a\u0000b")
    failures.report("cut", `${"x".repeat(499)}\u{1F600}`)
    assert.deepEqual(
      failures.list.map(({ reason }) => reason),
      [String.raw`"a\u0000b"`, `${"x".repeat(499)}\uFFFD`]
    )
  })
  test("are limited in number and in length", () => {
    const failures = new OngoingFailures(() => 0)
    for (let i = 0; i < 1_000; i++) failures.report(`${i}`, "x".repeat(10_000))
    assert.strictEqual(failures.list.length, 200)
    assert.strictEqual(failures.list[0]!.reason.length, 500)
  })
})

describe("a process among those of a system", () => {
  it.live("deletes its row only once a write under way has ended", () =>
    Effect.gen(function* () {
      const statements: Array<string> = []
      let written = (): void => undefined
      const sql = ([text]: TemplateStringsArray) => {
        statements.push(text!.includes("with gone as") ? "write" : "delete")
        return statements.length === 1 ? new Promise<void>((resolve) => (written = resolve)) : Promise.resolve()
      }
      const presence = new Presence()
      const scope = yield* Scope.make()
      yield* Scope.provide(presence.announce(sql as never), scope)
      yield* Effect.forkChild(presence.during("relay", {}, Effect.never))
      while (statements.length === 0) yield* Effect.sleep(1)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* Effect.sleep(5)
      assert.deepEqual(statements, ["write"])
      written()
      yield* Fiber.join(closing)
      assert.deepEqual(statements, ["write", "delete"])
    })
  )
  it.effect("forgets a partition's failure with a commit of it", () =>
    Effect.gen(function* () {
      const failures = new OngoingFailures()
      const at = { projection: "a", version: 1, topic: "t", partition: 0 }
      failures.report(projectionSubject(at), "the disk is full")
      const store = measuredStore({ commit: () => Effect.succeed(at) } as never, failures)
      const changes = { duplicates: 0, late: [], deadLetters: [] }
      yield* store.commit({ name: "a", version: 1 } as never, at as never, changes as never)
      assert.deepEqual(failures.list, [])
    })
  )
})

describe("a shared reading", () => {
  const options = { freshMs: 10_000, patienceMs: 20 }
  it.live("is read once for callers that come together or shortly after", () =>
    Effect.gen(function* () {
      let reads = 0
      const get = yield* makeSharedReading(
        Effect.sync(() => ++reads),
        options
      )
      const found = yield* Effect.all([get, get, get], { concurrency: "unbounded" })
      assert.deepEqual(
        [...found, yield* get].map(({ value }) => value),
        [1, 1, 1, 1]
      )
    })
  )
  it.live("that hangs is not read again, and callers get what was known, with the reason", () =>
    Effect.gen(function* () {
      let reads = 0
      let now = 0
      const gate = yield* Deferred.make<void>()
      const read = Effect.suspend(() =>
        ++reads === 1 ? Effect.succeed("old") : Effect.as(Deferred.await(gate), "new")
      )
      const get = yield* makeSharedReading(read, { ...options, now: () => now })
      assert.strictEqual((yield* get).value, "old")
      now = 10_000
      const asking = yield* Effect.forkChild(get)
      yield* Effect.yieldNow
      for (const seconds of [3, 60]) {
        now = 10_000 + seconds * 1_000
        assert.deepInclude(yield* get, { value: "old", failure: `no answer for ${seconds} s` })
      }
      yield* Fiber.join(asking)
      assert.strictEqual(reads, 2)
      const waiting = yield* Effect.forkChild(get)
      yield* Deferred.succeed(gate, undefined)
      assert.deepInclude(yield* Fiber.join(waiting), { value: "new", failure: undefined })
    })
  )
  it.live("that took long is not read again for ten times as long", () =>
    Effect.gen(function* () {
      let now = 0
      let reads = 0
      const read = Effect.sync(() => {
        now += 5_000
        return ++reads
      })
      const get = yield* makeSharedReading(read, { ...options, now: () => now })
      yield* get
      now += 49_000
      assert.strictEqual((yield* get).value, 1)
      now += 1_000
      assert.strictEqual((yield* get).value, 2)
    })
  )
  it.live("that took long is read again at once after a pause, and then a tenth of the time altogether", () =>
    Effect.gen(function* () {
      let now = 0
      let reads = 0
      const read = Effect.sync(() => {
        now += 500
        return ++reads
      })
      const given = { freshMs: 1_000, aheadMs: 15_000, patienceMs: 20, now: () => now }
      const get = yield* makeSharedReading(read, given)
      const during = Effect.fnUntraced(function* (ms: number) {
        const before = reads
        for (const end = now + ms; now < end; now += 100) yield* get
        return reads - before
      })
      // about four at once, and one in five seconds after them
      assert.isAtLeast(yield* during(6_000), 3)
      const often = yield* during(50_000)
      assert.isTrue(often >= 9 && often <= 11, `${often}`)
      now += 60_000
      assert.isAtLeast(yield* during(6_000), 3)
    })
  )
  it.live("that fails keeps the value and its age", () =>
    Effect.gen(function* () {
      let reads = 0
      const read = Effect.suspend(() => (++reads === 1 ? Effect.succeed(1) : Effect.fail(new Error("away"))))
      let now = 0
      const get = yield* makeSharedReading(read, { ...options, now: () => now })
      yield* get
      now = 12_000
      assert.deepEqual(yield* get, { value: 1, ageMs: 12_000, failure: "away" })
    })
  )
})

const partition = {
  name: "a",
  version: 1,
  declared: 1,
  topic: 'odd "topic"\\\n',
  partition: 0,
  position: 1,
  published: 0,
  end: 3,
  lag: 2,
  epoch: 1,
  stream_time: null,
  mode: "live",
  removed: false,
  halted: null,
  waiting: null,
  waiting_ms: null,
  claimed_by: null,
  committed_ms: null,
  oldest_ms: 1_500
}
const status: Status = {
  healthy: false,
  problems: [],
  notices: [],
  max_age_ms: 60_000,
  projections: [partition],
  relays: [{ target: "kafka", lag: 7, oldest_ms: 30_000, halted: null, halted_streams: 0, moved_ms: null }],
  follower_dead_letters: 0,
  timers: { waiting: 0, due: 0, oldest_ms: null, failing: 0 },
  dead_letters: 0,
  parked_messages: 0,
  delays: {
    projections: [{ projection: "a", topic: "t", partition: 0, source_ms: 5, projection_ms: 250, ago_ms: 9 }],
    relays: [{ target: "kafka", relay_ms: 40, ago_ms: 9 }]
  },
  builds: [],
  paused: [],
  subscriptions: [{ topic: "t", subscription: "s", undelivered: 4, unacknowledged: 1, consumed: false }],
  processes: []
}
const value = {
  status,
  deadLetters: [{ of: "a_v1", status: "parked", count: 3 }],
  parked: [{ of: "kafka", status: "parked", count: 1 }]
}

describe("metrics of the system", () => {
  it.effect("ages grow with the age of the reading, and text in labels is escaped", () =>
    Effect.gen(function* () {
      const text = yield* systemMetricsText({ value, ageMs: 2_000, failure: "away" })
      assert.include(text, "\nmillrace_status_up 0\n".trimStart())
      assert.include(text, "millrace_status_age_seconds 2\n")
      const labels = String.raw`{projection="a_v1",topic="odd \"topic\"\\\n",partition="0"}`
      assert.include(text, `millrace_projection_lag${labels} 2\n`)
      assert.include(text, `millrace_projection_oldest_seconds${labels} 3.5\n`)
      assert.include(text, 'millrace_relay_oldest_seconds{target="kafka"} 32\n')
      assert.include(text, 'millrace_projection_delay_seconds{projection="a",topic="t"} 0.25\n')
      assert.include(text, 'millrace_relay_delay_seconds{target="kafka"} 0.04\n')
      assert.include(
        text,
        "# HELP millrace_relay_lag Messages for the target that it does not have\n# TYPE millrace_relay_lag gauge\n"
      )
    })
  )
  it.effect("what is gone is reported no longer, and nothing is reported before the first reading", () =>
    Effect.gen(function* () {
      const gone = { ...value, status: { ...status, projections: [] } }
      assert.notInclude(yield* systemMetricsText({ value: gone, ageMs: 0, failure: undefined }), "projection_lag")
      const first = yield* systemMetricsText({ value: undefined, ageMs: Infinity, failure: "away" })
      assert.strictEqual(first.match(/^millrace/gm)!.length, 1)
    })
  )
})

describe("the reference of metrics", () => {
  const root = join(import.meta.dirname, "../../..")
  const page = readFileSync(join(root, "docs/reference/metrics.md"), "utf8")
  const listed = [...page.matchAll(/^\| `(millrace_\w+)` +\| (\w+) +\| ([^|]*) +\|/gm)].map(
    ([, name, type, labels]) => ({ name: name!, type: type!, labels: labels!.replaceAll("`", "").trim() })
  )
  test("lists every metric that the source declares, and no other", () => {
    const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((f) => f.endsWith(".ts"))
    const declared = files.flatMap((file) => {
      const code = readFileSync(join(root, "src", file), "utf8")
      return [...code.matchAll(/\b(counter|gauge|histogram)\(\s*"(millrace_\w+)"/g)].map(([, type, name]) => ({
        name: name!,
        type: type!
      }))
    })
    const sorted = (list: ReadonlyArray<{ readonly name: string; readonly type: string }>) =>
      list.map(({ name, type }) => `${name} ${type}`).toSorted()
    assert.isAbove(declared.length, 30)
    assert.deepEqual(sorted(listed), sorted(declared))
  })
  test("names follow Prometheus' conventions", () => {
    for (const { name, type } of listed) {
      assert.strictEqual(name.endsWith("_total"), type === "counter", name)
      if (type === "histogram") assert.match(name, /_seconds$/)
    }
  })
  it.effect("has the labels that are exported", () =>
    Effect.gen(function* () {
      const text = yield* systemMetricsText({ value, ageMs: 0, failure: undefined })
      const samples = [...text.matchAll(/^(millrace_\w+)(?:\{(.*)\})? /gm)]
      assert.isAbove(samples.length, 15)
      for (const [, name, labels = ""] of samples) {
        const names = [...labels.matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)].map(([, label]) => label).join(",")
        assert.strictEqual(listed.find((one) => one.name === name)?.labels, names, name)
      }
    })
  )
})

describe("a relay's failures are counted and noted", () => {
  const failed = new RelayError({ target: "pulsar", operation: "publish", retryable: false, reason: "no client" })
  const halt = { projection: "p", source: "s", partition: 0, reason: "a gap" }
  const round = { messages: 2, more: false, halted: [] }
  const counted = Effect.map(Effect.context<never>(), (context) => {
    const found = /^millrace_relay_failures_total\{target="pulsar"\} (\d+)$/m.exec(formatUnsafe(context))
    return Number(found?.[1] ?? 0)
  })
  /** Opens a target and publishes once, then returns by how much the counter grew, and what fails. */
  const measured = Effect.fnUntraced(function* (
    open: Effect.Effect<RelayTarget, RelayError>,
    failures: OngoingFailures = new OngoingFailures(() => 0)
  ) {
    const before = yield* counted
    yield* Effect.exit(Effect.flatMap(measuredRelay("pulsar", open, failures), ({ publish }) => publish))
    const now = yield* counted
    return [now - before, failures.list.map(({ reason, what }) => `${what}: ${reason}`)] as const
  })
  const publishing = (publish: RelayTarget["publish"]) =>
    Effect.succeed({ name: "pulsar", publish, wait: Effect.never, lag: Effect.succeed([]), signal: () => {} })

  it.effect("if its target cannot be opened, or opening throws", () =>
    Effect.gen(function* () {
      assert.deepEqual((yield* measured(Effect.fail(failed)))[0], 1)
      assert.deepEqual((yield* measured(Effect.die(new TypeError("x"))))[0], 1)
    })
  )
  it.effect("if a round fails or throws; not if it is interrupted", () =>
    Effect.gen(function* () {
      assert.deepEqual(yield* measured(publishing(Effect.fail(failed))), [1, ["relay to pulsar: no client"]])
      assert.deepEqual((yield* measured(publishing(Effect.die(new TypeError("x")))))[0], 1)
      assert.deepEqual((yield* measured(publishing(Effect.interrupt)))[0], 0)
    })
  )
  it.effect("if attempts within rounds fail: each is counted, and streams that wait differ from halted ones", () =>
    Effect.gen(function* () {
      const failures = new OngoingFailures(() => 0)
      const waiting = { ...round, waiting: [{ ...halt, reason: "no answer" }], failures: 3 }
      assert.deepEqual(yield* measured(publishing(Effect.succeed(waiting)), failures), [
        3,
        ["waiting stream of the relay to pulsar: p s/0 waits: no answer"]
      ])
      assert.deepEqual(yield* measured(publishing(Effect.succeed({ ...round, halted: [halt] })), failures), [
        0,
        ["stream of the relay to pulsar: p s/0 is halted: a gap"]
      ])
      assert.deepEqual(yield* measured(publishing(Effect.succeed(round)), failures), [0, []])
    })
  )
})
