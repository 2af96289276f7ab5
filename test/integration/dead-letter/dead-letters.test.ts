// Parked events are published to their dead-letter topic: once, whatever happens to the commit, and whatever they contain.
// oxlint-disable unicorn/no-thenable -- `then` is a word of failure policies
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { DeadLetters } from "../../../src/index.ts"
import type { LogRecord, NewRecord } from "../../../src/log/log.ts"
import { connect, query } from "../../../src/postgres/client/client.ts"
import type { FailurePolicy } from "../../../src/model/failure-policy.ts"
import type { Claim } from "../../../src/runner/store.ts"
import { assertCaught } from "../../fault/commits.ts"
import { lossy } from "../../fault/lossy.ts"
import * as Mutant from "../../fault/mutants.ts"
import { application, assertCounted, done, events, deadLetters, handled, many } from "../../fault/poison.ts"
import { engine, recordOf, relay, run, settled, type Engine } from "../../support/engine.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

type Body = (made: Engine) => Effect.Effect<void, unknown, Scope.Scope>
const test = (name: string, failure: FailurePolicy, body: Body) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(engine(root, application(failure)), body)), 60_000)

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
const poisoned = (value: object, more: Partial<NewRecord> = {}): NewRecord => ({
  ...recordOf(events, value, 4),
  tenant: "acme",
  traceparent: `00-${traceId}-00f067aa0ba902b7-01`,
  headers: { origin: "test" },
  ...more
})
const topic = DeadLetters.topic(application({}).projections[0]!.projection)
/** The messages of the dead-letter topic, once the relay has published everything. */
const published = Effect.fnUntraced(function* (made: Engine, name = topic.name) {
  const target = yield* relay(made)
  while ((yield* target.lag).some(({ lag }) => lag > 0)) yield* Effect.sleep(5)
  const found: Array<LogRecord> = []
  for (const { partition } of yield* made.log.bounds(name)) {
    for (let at = 0; ;) {
      const { next, records } = yield* made.log.read(name, partition, at)
      if (next === at) break
      found.push(...records)
      at = next
    }
  }
  return found.map((record) => ({ record, value: topic.decode(JSON.parse(record.value!)) }))
})

describe("a dead letter", () => {
  test(
    "is a row and an equal message, with the envelope of the event",
    {},
    Effect.fnUntraced(function* (made) {
      assert.strictEqual(topic.name, "p.events.poison.dlq")
      const poison = done("throw")
      yield* made.log.append("p.events", [poisoned(poison)])
      const others = many(40)
      yield* handled(made, others)
      yield* assertCounted(made.sql, others)
      const [letter, ...more] = yield* deadLetters(made.sql)
      const [message, ...again] = yield* published(made)
      assert.deepStrictEqual([more, again], [[], []])
      const { partition, position } = letter!
      assert.deepStrictEqual(message!.value, {
        error: "TypeError",
        message: `cannot handle ${poison.id}`,
        attempts: 1,
        projection: "poison",
        version: 1,
        topic: "p.events",
        partition,
        position,
        key: poison.key,
        value: JSON.stringify(poison),
        headers: { origin: "test" },
        truncated: false,
        event_time: poison.at,
        trace_id: traceId
      })
      assert.strictEqual(letter!.trace_id, traceId)
      const { eventId, eventTime, headers, key, tenant, traceparent } = message!.record
      assert.deepStrictEqual(
        { eventId, eventTime, key, tenant, traceparent },
        {
          eventId: poison.id,
          eventTime: poison.at,
          key: poison.key,
          tenant: "acme",
          traceparent: `00-${traceId}-00f067aa0ba902b7-01`
        }
      )
      assert.strictEqual(headers["millrace-stream"], `poison/p.events/${partition}`)
    })
  )
  test(
    "is published to the topic that the policy names",
    { deadLetterTopic: "errors" },
    Effect.fnUntraced(function* (made) {
      yield* handled(made, [done("throw"), done("fail"), ...many(5), done("whole")])
      const found = yield* published(made, "errors")
      assert.deepStrictEqual(found.map(({ value }) => value.error).toSorted(), ["Refused", "TypeError", "Unstorable"])
      assert.strictEqual((yield* made.log.bounds("errors")).length, 1)
    })
  )
  for (const failure of [{ deadLetterTopic: false }, { then: "skip" }] as const) {
    test(
      `is a row and no message with the policy ${JSON.stringify(failure)}`,
      failure,
      Effect.fnUntraced(function* (made) {
        yield* handled(made, [done("throw")])
        assert.lengthOf(yield* deadLetters(made.sql), 1)
        assert.lengthOf(yield* query("read", () => made.sql`select from millrace.outbox`), 0)
        const topics = yield* query(
          "read",
          () => made.sql<Array<{ name: string }>>`select name from millrace.log_topic`
        )
        assert.deepStrictEqual(
          topics.map(({ name }) => name),
          ["p.events"]
        )
      })
    )
  }
  test(
    "of a build that follows the live one is a row and no message",
    {},
    Effect.fnUntraced(function* (made) {
      yield* query("follow", () => made.sql`update millrace.progress set mode = 'follower'`)
      // the live build, which has processed everything: a follower goes no further
      yield* query(
        "note a live build",
        () => made.sql`insert into millrace.projection (name, version, declared, definition)
          select name, version + 1, declared + 1, definition from millrace.projection`
      )
      yield* query(
        "follow it",
        () => made.sql`insert into millrace.progress (projection, version, topic, partition, mode, next_position)
          select projection, version + 1, topic, partition, 'live', 1000 from millrace.progress`
      )
      yield* query("make it the live one", () => made.sql`update millrace.live set version = version + 1`)
      yield* handled(made, [done("throw")])
      assert.lengthOf(yield* deadLetters(made.sql), 1)
      assert.lengthOf(yield* query("read", () => made.sql`select from millrace.outbox`), 0)
    })
  )
  test(
    "is published whatever it contains, and cut if it is too large",
    {},
    Effect.fnUntraced(function* (made) {
      const odd = "nul \u0000 and half \ud83d"
      const large = { ...done("throw"), does: "\u0001".repeat(700_000), n: "many" }
      const records = [
        poisoned(done("nul"), { key: odd, headers: { odd }, eventId: odd, tenant: odd, traceparent: `00-${odd}` }),
        poisoned(done(), { value: JSON.stringify({ text: odd }) }),
        poisoned(done(), { value: null }),
        poisoned(done("throw", { at: 4_102_444_800_000 }), { eventTime: 4_102_444_800_000 }),
        poisoned(large)
      ]
      yield* made.log.append(
        "p.events",
        records.map((record) => Object.assign({}, record, { partition: 1 }))
      )
      yield* handled(made, [])
      assert.lengthOf(yield* deadLetters(made.sql), 5)
      const found = (yield* published(made)).toSorted((a, b) => a.value.position - b.value.position)
      assert.deepStrictEqual(
        found.map(({ value }) => value.position),
        [0, 1, 2, 3, 4]
      )
      const [first, second, third, fourth, fifth] = found
      // a key is text that every log takes, an id and a tenant are left out otherwise
      assert.deepInclude(first!.record, {
        key: JSON.stringify(odd),
        eventId: undefined,
        tenant: undefined,
        traceparent: undefined
      })
      assert.deepStrictEqual(first!.value.headers, { odd: JSON.stringify(odd) })
      assert.strictEqual(second!.value.value, JSON.stringify({ text: odd }))
      assert.isNull(third!.value.value)
      // brokers refuse what is dated far ahead
      assert.isBelow(fourth!.record.eventTime, Date.now() + 1_000)
      assert.strictEqual(fourth!.value.event_time, 4_102_444_800_000)
      assert.isTrue(fifth!.value.truncated)
      for (const { record } of found) assert.isBelow(Buffer.byteLength(record.value!), 600_000)
      assert.isTrue(JSON.stringify(large).startsWith(fifth!.value.value!.slice(0, 10_000)))
    })
  )
})

type Check = (made: Engine, make: Mutant.MakeStore) => Effect.Effect<void, unknown, Scope.Scope>
const assertOnce = Effect.fnUntraced(function* (made: Engine, ids: ReadonlyArray<string>) {
  const rows = yield* deadLetters(made.sql)
  assert.deepStrictEqual(rows.map(({ value }) => (JSON.parse(value) as { id: string }).id).toSorted(), ids.toSorted())
  const found = yield* published(made)
  assert.deepStrictEqual(found.map(({ record }) => record.eventId).toSorted(), ids.toSorted())
})
/** The reply of a commit that parks an event is lost, although the commit succeeded. */
const lostReply: Check = Effect.fnUntraced(function* (made, make) {
  const proxy = yield* lossy(made.url)
  const poisons = Array.from({ length: 4 }, () => done("throw", { key: "k1" }))
  // it is handled once what became of the commit before it is known
  const next = done("", { key: "k1" })
  // the statement is prepared by then, so the next use of it is one message
  const store = beforeCommit(make(yield* connect(proxy.url, { max: 1 })), 4, () =>
    Effect.sync(() => proxy.arm("executed"))
  )
  const stop = yield* run({ ...made, store })
  // claims go through the proxy too
  yield* query("claimed", () => made.sql`select from millrace.progress where epoch = 0`).pipe(
    Effect.repeat({ until: (unclaimed) => unclaimed.length === 0 })
  )
  for (const poison of [...poisons, next]) {
    yield* made.log.append("p.events", [poisoned(poison)])
    yield* settled(made)
  }
  yield* stop
  assert.strictEqual(proxy.lost(), 1)
  yield* assertOnce(
    made,
    poisons.map(({ id }) => id)
  )
})
/** Another process claims the partition during the commit that parks an event. */
const fenced: Check = Effect.fnUntraced(function* (made, make) {
  const poison = done("throw", { key: "k1" })
  yield* made.log.append("p.events", [poisoned(poison)])
  const store = beforeCommit(make(made.sql), 1, ({ partition, topic }) =>
    Effect.orDie(
      query(
        "claim",
        () => made.sql`update millrace.progress set incarnation = gen_random_uuid(), epoch = epoch + 2
          where topic = ${topic} and partition = ${partition}`
      )
    )
  )
  const stop = yield* run({ ...made, store })
  yield* settled(made)
  yield* stop
  const [progress] = yield* query("read", () => made.sql`select max(epoch)::int8 as epoch from millrace.progress`)
  assert.isAbove(progress!["epoch"], 2)
  yield* assertOnce(made, [poison.id])
})
/** A store that runs an effect before its nth commit. */
const beforeCommit = (
  store: Engine["store"],
  nth: number,
  happens: (claim: Claim) => Effect.Effect<unknown>
): Engine["store"] => {
  let commits = 0
  return {
    ...store,
    commit: Effect.fnUntraced(function* (projection, claim, changes) {
      if (++commits === nth) yield* happens(claim)
      return yield* store.commit(projection, claim, changes)
    })
  }
}

describe("a dead letter is published once", () => {
  const checked = (name: string, check: Check) => test(name, {}, (made) => check(made, Mutant.real))
  checked("even if the reply of its commit is lost", lostReply)
  checked("even if its commit is fenced and repeated", fenced)
  test(
    "the mutant that repeats a commit without its number is found",
    {},
    Effect.fnUntraced(function* (made) {
      assertCaught(yield* Effect.exit(lostReply(made, Mutant.resendUnnumbered)))
    })
  )
})
