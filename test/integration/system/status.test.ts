// The status of systems on an embedded PostgreSQL: ages, who runs and who is missing, what relays skip, followers.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema, Scope } from "effect"
import { afterAll, beforeAll, vi } from "vitest"
import { Agg, Application, Event, Projection, Topic, Window } from "../../../src/index.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { storeSkipped } from "../../../src/postgres/relay/lag.ts"
import type { Status } from "../../../src/system/status.ts"
import { readStatus } from "../../../src/system/observed.ts"
import { openSystem, runProjections, runRelay, type System } from "../../../src/system/system.ts"
import { recordOf } from "../../support/engine.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
const test = (name: string, body: () => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(body()), 90_000)

const Paid = Event.make("paid", { id: Schema.String, who: Schema.String, at: Schema.Int })
const payments = Topic.events("payments", {
  events: [Paid],
  id: "id",
  key: "who",
  eventTime: "at",
  partitions: 2
})
const receipts = Topic.records("receipts", { value: { id: Schema.String, who: Schema.String }, key: "who" })
const counts = Window.tumbling("counts", {
  size: ["1 hour"],
  key: { who: Schema.String },
  aggregate: { payments: Agg.count }
})
const application = (version = 1, handler: Effect.Effect<void> = Effect.void): Application.Any => {
  const projection = Projection.make({
    name: "counting",
    version,
    source: payments,
    writes: [counts, receipts],
    handle: {
      paid: ({ id, who }, out) => {
        out.add(counts, { who, payments: 1 })
        out.publish(receipts, { id, who })
        return handler
      }
    }
  })
  return { ...Application.make({ name: "counting", projections: [Projection.async(projection)] }), services: undefined }
}
/** A system on a new database, or on a given one. */
const opened = Effect.fnUntraced(function* (
  given: Application.Any = application(),
  on?: { readonly url: string; readonly sql: Sql },
  relaysHere = false
) {
  const { sql, url } = on ?? (yield* databaseOn(root))
  return yield* openSystem(given, { url, sql, embedded: false, failed: Effect.never }, { relaysHere })
})
const pay = ({ log }: System, count: number) =>
  log.append(
    "payments",
    Array.from({ length: count }, (_, n) => recordOf(payments, { type: "paid", id: `${n}`, who: `${n}`, at: n }, 2))
  )
/** The status once it is as expected, by which every waiting record is too old after a millisecond. */
const until = Effect.fnUntraced(function* (system: System, done: (status: Status) => boolean, maxAgeMs = 1) {
  while (true) {
    const status = yield* readStatus(system, { maxAgeMs })
    if (done(status)) return status
    yield* Effect.sleep(20)
  }
}, Effect.timeout("40 seconds"))
const found = ({ notices, problems }: Status) => ({
  problems: problems.map(({ kind, what }) => `${kind}: ${what}`),
  notices: notices.map(({ kind, what }) => `${kind}: ${what}`)
})
const isProcessed = ({ projections }: Status) => projections.every(({ lag }) => lag === 0)
const isKnown = ({ processes }: Status) => processes.length > 0

describe("what does not run", () => {
  test("a relay that no process runs is named once messages are too old, and not before", () =>
    Effect.gen(function* () {
      const system = yield* opened()
      yield* Effect.forkScoped(runProjections(system))
      yield* pay(system, 20)
      const status = yield* until(system, (one) => isProcessed(one) && isKnown(one) && one.relays[0]!.oldest_ms! > 1)
      assert.isFalse(status.healthy)
      assert.deepEqual(found(status), { problems: ["not_running: relay to embedded"], notices: [] })
      assert.match(status.problems[0]!.message, /^no process runs it; 20 messages wait, the oldest for 0 s$/)
      assert.strictEqual(status.problems[0]!.try, "millrace start --roles relay")
      assert.isTrue((yield* readStatus(system)).healthy, "by the default they may wait for a minute")
      // by the age, whatever the clock of this process says
      yield* query("age", () => system.database.sql`update millrace.outbox set created_at = now() - interval '2 hours'`)
      const clock = vi.spyOn(Date, "now").mockReturnValue(0)
      const aged = yield* readStatus(system)
      clock.mockRestore()
      assert.match(aged.problems[0]!.message, /the oldest for 2 h$/)
      // it is healthy as soon as a relay runs
      const relaying = yield* opened(application(), system.database as { url: string; sql: Sql }, true)
      yield* Effect.forkScoped(runRelay(relaying))
      yield* until(system, ({ healthy }) => healthy)
    }))
  test("a projection that no process runs is named, and one whose process died with that process", () =>
    Effect.gen(function* () {
      const system = yield* opened(application(), undefined, true)
      yield* Effect.forkScoped(runRelay(system))
      yield* pay(system, 3)
      const { problems } = yield* until(system, isKnown)
      assert.strictEqual(problems[0]!.what, "projection counting v1")
      assert.match(problems[0]!.message, /^no process runs it; 3 records of payments wait, the oldest for 0 s$/)
      assert.strictEqual(problems[0]!.try, "millrace start --roles projections")
      yield* query(
        "a process that died",
        () => system.database.sql`
          insert into millrace.process (process_id, host, pid, roles, projections, targets, last_seen)
          values (gen_random_uuid(), 'away', 99, '{projections}', '{counting_v1}', '{}', now() - interval '3 minutes')`
      )
      const again = yield* readStatus(system, { maxAgeMs: 1 })
      assert.match(again.problems[0]!.message, /; process 99 on away did, and was last seen 3 min( \d s)? ago;/)
      // the age of records does not depend on the clock of this process either
      const clock = vi.spyOn(Date, "now").mockReturnValue(0)
      const early = yield* readStatus(system)
      clock.mockReturnValue(4e12)
      const ages = [...early.projections, ...(yield* readStatus(system)).projections].map(({ oldest_ms }) => oldest_ms)
      clock.mockRestore()
      assert.isTrue(
        ages.every((age) => age === null || (age > 0 && age < 600_000)),
        ages.join()
      )
      assert.deepInclude(again.processes[1]!, { host: "away", pid: 99, running: false })
    }))
  test("without any process waiting records are a problem at once, and a process leaves no row when it stops", () =>
    Effect.gen(function* () {
      const system = yield* opened()
      yield* pay(system, 1)
      const status = yield* readStatus(system)
      assert.deepEqual(found(status), { problems: ["nothing_runs: system"], notices: [] })
      const one = yield* Scope.make()
      const running = yield* Scope.provide(opened(application(), system.database as { url: string; sql: Sql }), one)
      yield* Effect.forkIn(runProjections(running), one)
      yield* until(system, (now) => isProcessed(now) && isKnown(now))
      yield* Scope.close(one, Exit.void)
      const ended = yield* readStatus(system)
      assert.deepEqual(ended.processes, [])
      assert.deepEqual(found(ended).notices, [])
      assert.match(ended.problems[0]!.message, /no process of the system runs; waiting: 1 message to publish$/)
    }))
})

describe("why work waits", () => {
  test("a handler that never ends is named with its process", () =>
    Effect.gen(function* () {
      const system = yield* opened(application(1, Effect.never))
      yield* Effect.forkScoped(runProjections(system))
      yield* pay(system, 8)
      const status = yield* until(system, ({ problems }) =>
        problems.some(({ kind, message }) => kind === "stuck" && message.includes("partitions 0, 1"))
      )
      assert.deepEqual(found(status).problems, ["stuck: projection counting v1"])
      assert.include(status.problems[0]!.message, `process ${process.pid} on `)
      assert.include(status.problems[0]!.message, "holds partitions 0, 1 of payments and has committed nothing yet")
      assert.isTrue(status.projections.every(({ oldest_ms }) => oldest_ms! > 0))
    }))
  test("what a process tries again is reported with its reason, and forgotten once a commit succeeds", () =>
    Effect.gen(function* () {
      const system = yield* opened()
      system.presence.failures.report("projection counting_v1 payments/0", "the disk is full")
      yield* pay(system, 8)
      yield* Effect.forkScoped(system.presence.during("projections", { projections: ["counting_v1"] }, Effect.never))
      const status = yield* until(system, isKnown)
      const again = status.problems.find(({ kind }) => kind === "trying_again")
      assert.match(again!.message, /^partition 0 of payments fails for 0 s and is tried again: the disk is full; /)
      assert.strictEqual(status.processes[0]!.failing[0]!.reason, "the disk is full")
      yield* Effect.forkScoped(runProjections(system))
      yield* until(system, isProcessed)
      assert.deepEqual(system.presence.failures.list, [])
    }))
  test("a halted partition needs a person at once, and a halted follower does not make the system unhealthy", () =>
    Effect.gen(function* () {
      const system = yield* opened()
      const halt = (version: number) =>
        query(
          "halt",
          () =>
            system.database
              .sql`update millrace.progress set halted = 'why' where version = ${version} and partition = 1`
        )
      yield* opened(application(2), system.database as { url: string; sql: Sql })
      yield* halt(2)
      const follower = yield* readStatus(system)
      assert.isTrue(follower.healthy)
      assert.include(found(follower).notices, "needs_a_person: projection counting v2 (follower)")
      yield* halt(1)
      const live = yield* readStatus(system)
      assert.isFalse(live.healthy)
      assert.deepEqual(found(live).problems, ["needs_a_person: projection counting v1"])
      assert.strictEqual(live.problems[0]!.message, "partition 1 of payments halted: why")
    }))
})

describe("what a relay lacks", () => {
  const toPulsar = (system: System) => ({ ...system, targets: ["embedded", "pulsar"] })
  test("topics that a target skips count neither as behind nor as old", () =>
    Effect.gen(function* () {
      const system = yield* opened()
      yield* Effect.forkScoped(runProjections(system))
      yield* pay(system, 20)
      yield* until(system, isProcessed)
      const lacks = Effect.map(readStatus(toPulsar(system)), ({ relays }) =>
        relays.map(({ lag, oldest_ms, target }) => [target, lag, oldest_ms !== null])
      )
      assert.deepEqual(yield* lacks, [
        ["embedded", 20, true],
        ["pulsar", 20, true]
      ])
      yield* storeSkipped(system.database.sql, "pulsar", ["receipts"])
      assert.deepEqual(yield* lacks, [
        ["embedded", 20, true],
        ["pulsar", 0, false]
      ])
      // a second topic, of which nothing is skipped: only its messages count, and only their age
      yield* query(
        "another topic",
        () => system.database.sql`
          insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, meta, vals, created_at)
          select projection, topic, partition, outbox_seq + 1, 3, gen_random_uuid(), 'other', '[]', '', now() - interval '1 hour'
          from millrace.progress where partition = 0`
      )
      yield* query(
        "and its position",
        () => system.database.sql`update millrace.progress set outbox_seq = outbox_seq + 3 where partition = 0`
      )
      // and a time mark, which the relay to Pulsar drops
      yield* query(
        "a mark",
        () => system.database.sql`
          insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, meta, vals, created_at)
          select projection, topic, partition, outbox_seq + 1, 1, gen_random_uuid(), 'other',
            '[[null,1,null,null,null,null,{"millrace-time":"1"}]]', '', now() - interval '2 hours'
          from millrace.progress where partition = 1`
      )
      yield* query(
        "its position",
        () => system.database.sql`update millrace.progress set outbox_seq = outbox_seq + 1 where partition = 1`
      )
      const [embedded, pulsar] = (yield* readStatus(toPulsar(system))).relays
      assert.strictEqual(embedded!.lag, 24)
      assert.strictEqual(pulsar!.lag, 3)
      assert.isBelow(pulsar!.oldest_ms!, 7_200_000)
      assert.isAtLeast(pulsar!.oldest_ms!, 3_600_000)
    }))
  test("a topic that every target skips is noted as published by nobody", () =>
    Effect.gen(function* () {
      const system = yield* opened()
      yield* storeSkipped(system.database.sql, "kafka", ["receipts"])
      const noted = Effect.map(readStatus({ ...system, targets: ["kafka"] }), (status) => found(status).notices)
      assert.include(yield* noted, "not_published: topic receipts")
      yield* storeSkipped(system.database.sql, "kafka", [])
      assert.notInclude(yield* noted, "not_published: topic receipts")
    }))
})
