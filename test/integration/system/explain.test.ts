// `millrace explain`: the events that made a row, in order, and whether a replay gives the row that is stored.
import { afterAll, afterEach, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { FailurePolicy } from "../../../src/model/failure-policy.ts"
import { partitionOf } from "../../../src/model/partitioner.ts"
import * as Letters from "../../../src/postgres/store/dead-letters.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { appendRetryRecords } from "../../../src/system/dead-letters/projections.ts"
import { application, events, fails } from "../../support/dead-letter-application.ts"
import chain, { byKind, scans, scansOf } from "../../support/chain.config.ts"
import { append, type Engine, engine, recordOf, relay, run, settled } from "../../support/engine.ts"
import { explained, linesOf } from "../../support/explain.ts"
import { run as command } from "../../support/cli.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
afterEach(() => void (fails.for = new Set(["bad"])))

const test = (
  name: string,
  body: (made: Engine) => Effect.Effect<void, unknown, Scope.Scope>,
  failure: FailurePolicy = {}
) => it.live(name, () => Effect.scoped(Effect.flatMap(engine(root, application(failure)), body)), 60_000)

const hour = 3_600_000
const noon = 1_700_000_000_000 - (1_700_000_000_000 % hour)
const event = (id: string, key: string, at = 0, does = "") => ({ id, key, at: noon + at * hour, does })
const handled = Effect.fnUntraced(function* (made: Engine, values: ReadonlyArray<object>) {
  yield* append(made, events, values)
  const stop = yield* run(made)
  yield* settled(made)
  yield* stop
})
const retry = Effect.fnUntraced(function* ({ log, sql }: Engine) {
  const letters = yield* query("read", () => Letters.retryable(sql, { statuses: ["parked", "retrying"], limit: 1_000 }))
  return yield* appendRetryRecords(sql, log, letters, "tester")
})
const hours = (key: string, at = 0) => ({ key, window_size: "1h", window_start: noon + at * hour })

test(
  "names the events that wrote a row, in order, with what each asked for, and the row after each",
  Effect.fnUntraced(function* (made) {
    yield* handled(made, [event("1", "a"), event("2", "b"), event("3", "a"), event("3", "a"), event("4", "a")])
    const found = yield* explained(made, "handled", { key: "a" })
    assert.deepStrictEqual(linesOf(found), [
      "0: applied: modify",
      "2: applied: modify",
      "3: duplicate: ",
      "4: applied: modify"
    ])
    assert.deepStrictEqual(
      found.events.map(({ row }) => row?.["ids"]),
      ["1", "1 3", "1 3", "1 3 4"]
    )
    assert.deepStrictEqual(found.differences, [])
    assert.deepInclude(found, { projection: "watch", version: 1, build: 1, live: true, notes: [] })
    assert.deepInclude(found.events[2]!, { duplicateOf: 2, type: undefined, key: "a", eventId: "3" })
    assert.deepInclude(found.events[0]!, { traceId: "0af7651916cd43dd8448eb211c80319c", eventTime: noon })
    // a row whose key is not the event's
    const whole = yield* explained(made, "whole", { id: "2" })
    assert.deepStrictEqual(linesOf(whole), ["1: applied: upsert"])
    assert.deepStrictEqual(whole.events[0]!.calls, [{ kind: "upsert", values: { id: "2", n: 1 } }])
    assert.strictEqual((yield* explained(made, "handled", { key: "nobody" })).events.length, 0)
  })
)

test(
  "names an unreadable record that has the row's key",
  Effect.fnUntraced(function* (made) {
    yield* append(made, events, [event("1", "a")])
    const record = recordOf(events, event("2", "a"), 2)
    yield* made.log.append(events.name, [{ ...record, eventId: undefined, value: "null" }])
    const stop = yield* run(made)
    yield* settled(made)
    yield* stop
    const found = yield* explained(made, "handled", { key: "a" })
    assert.deepStrictEqual(linesOf(found), ["0: applied: modify", "1: dead letter?: "])
    assert.deepInclude(found.events[1]!, { eventId: undefined, value: "null", key: "a" })
    assert.deepInclude(found.events[1]!.deadLetter!, { status: "parked" })
  })
)

test(
  "names contributions to a window, those that came too late, and dead letters that never got in or were retried",
  Effect.fnUntraced(function* (made) {
    yield* handled(made, [
      event("1", "a"),
      event("2", "a", 0, "bad"),
      event("3", "a", 0.5, "whole"),
      event("4", "a", 2),
      event("5", "a", 0)
    ])
    const lines = ["0: applied: add", "1: dead letter?: ", "2: dead letter: add", "4: late: add"]
    assert.deepStrictEqual(linesOf(yield* explained(made, "hours", hours("a"))), lines)
    fails.for.clear()
    assert.strictEqual(yield* retry(made), 2)
    yield* handled(made, [])
    const found = yield* explained(made, "hours", hours("a"))
    // the handler is another one now, so the event fails no more, and its retry finds no dead letter
    assert.deepStrictEqual(linesOf(found), [
      "0: applied: add",
      "1: applied: add",
      "2: dead letter: add",
      "4: late: add",
      "2 by 6: dead letter: add"
    ])
    assert.deepStrictEqual(found.differences, [])
    assert.deepStrictEqual(
      found.events.map(({ deadLetter }) => deadLetter?.status),
      [undefined, "retried", "parked", undefined, "parked"]
    )
    assert.match(found.events[2]!.error!.message, /SQLSTATE/)
  })
)

test(
  "retries in the order of keys, with every event that a retry brought back",
  Effect.fnUntraced(function* (made) {
    fails.for = new Set(["whole"])
    yield* handled(made, [event("1", "a"), event("2", "a", 0, "whole"), event("3", "a"), event("4", "a")])
    yield* retry(made)
    yield* handled(made, [])
    const found = yield* explained(made, "handled", { key: "a" })
    assert.deepStrictEqual(linesOf(found).slice(0, 4), [
      "0: applied: modify",
      "1: dead letter?: ",
      "2: dead letter?: ",
      "3: dead letter?: "
    ])
    assert.deepStrictEqual(found.stored?.["ids"], "1")
    assert.deepStrictEqual(found.differences, [])
  }),
  { order: "key" }
)

test(
  "says that the replay gives another row, and which column differs",
  Effect.fnUntraced(function* (made) {
    yield* handled(made, [event("1", "a"), event("2", "a")])
    yield* query("change the row", () => made.sql`update watch_v1.counts set events = 7`)
    const { differences } = yield* explained(made, "counts", { key: "a" })
    assert.deepStrictEqual(differences, [{ column: "events", stored: 7, replayed: 2, isRounding: false }])
    // the table of `other` is another one
    assert.deepStrictEqual((yield* explained(made, "everything", { key: "a" })).differences, [])
  })
)

test(
  "reads what a build processed and the log still has, and says what is gone",
  Effect.fnUntraced(function* (made) {
    yield* handled(made, [event("1", "a"), event("2", "a"), event("3", "b")])
    yield* append(made, events, [event("4", "a")])
    const before = yield* explained(made, "counts", { key: "a" })
    assert.deepStrictEqual(linesOf(before), ["0: applied: add", "1: applied: add"])
    const partition = partitionOf("a", 2)
    yield* query(
      "delete",
      () => made.sql`update millrace.log_head h set start_position = 1 from millrace.log_topic t
        where t.topic_id = h.topic_id and t.name = ${events.name} and h.partition = ${partition}`
    )
    const found = yield* explained(made, "counts", { key: "a" })
    assert.deepStrictEqual(linesOf(found), ["1: applied: add"])
    assert.deepStrictEqual(found.partitions[partition]!.gone, { from: 0, to: 1 })
    assert.match(found.notes[0]!, /no longer has the positions 0 to 0/)
    assert.strictEqual(found.differences, undefined)
  })
)

test(
  "keeps the last events, and counts the others; a part of the log is not compared",
  Effect.fnUntraced(function* (made) {
    yield* handled(
      made,
      Array.from({ length: 5 }, (_, i) => event(String(i), "a"))
    )
    const last = yield* explained(made, "counts", { key: "a" }, { mostEvents: 2 })
    assert.deepStrictEqual([linesOf(last), last.omitted], [["3: applied: add", "4: applied: add"], 3])
    const until = yield* explained(made, "counts", { key: "a" }, { until: 1 })
    assert.deepStrictEqual([until.events.length, until.differences], [0, undefined])
    const from = yield* explained(made, "counts", { key: "a" }, { from: Date.now() + hour })
    assert.deepStrictEqual([from.events.length, from.differences], [0, undefined])
  })
)

it.live(
  "an event of a derived topic is named as the message that it is, and its trace is that of the event behind it",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const made = yield* engine(root, { ...chain, services: undefined })
        yield* relay(made)
        const stop = yield* run(made)
        yield* append(made, scans, scansOf(12, 1))
        const read = () => query("read", () => made.sql`select * from kind_days where hub = 'oslo'`)
        while (Number((yield* read())[0]?.["n"] ?? 0) < 2) yield* Effect.sleep(20)
        yield* stop
        const key = { hub: "oslo", window_size: "1d", window_start: Date.UTC(2026, 0, 1) }
        const found = yield* explained(made, "kind_days", key)
        assert.deepStrictEqual(found.differences, [])
        assert.strictEqual(found.events.length, 2)
        for (const { message, topic, traceId, eventId } of found.events) {
          assert.strictEqual(topic, byKind.name)
          assert.match(message!.stream, /^second\/by-hub\/\d$/)
          assert.isAbove(message!.sequence, 0)
          assert.strictEqual(traceId, "0af7651916cd43dd8448eb211c80319c")
          assert.match(eventId!, /^s-\d+$/)
        }
      })
    ),
  60_000
)

it.live(
  "the command prints the events for people and as JSON, and says what is wrong with a table or a key",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const on = yield* databaseOn(root)
        const config = "test/support/dead-letter-application.ts"
        const explain = (...args: ReadonlyArray<string>) =>
          command({ MILLRACE_DATABASE_URL: on.url }, "explain", "--config", config, ...args)
        assert.strictEqual((yield* command({ MILLRACE_DATABASE_URL: on.url }, "migrate", "--config", config)).code, 0)
        const made = yield* engine(root, application(), { on })
        yield* handled(made, [event("1", "a"), event("evil \u001b[31m", "a"), event("3", "a", 0, "bad")])
        const text = yield* explain("handled", "a")
        assert.deepStrictEqual([text.code, text.errors], [0, ""])
        assert.match(
          text.output,
          /^handled a: projection watch version 1, build 1; replayed 3 positions of 2 partitions\n/
        )
        assert.match(
          text.output,
          /^1\. l\.events\/0 position 0 {2}key a\n {3}event time 2023-.*, trace 0af7651916cd43dd8448eb211c80319c$/m
        )
        assert.match(text.output, /^ {3}modify {"key":"a"}\n {3}value {"id":"1",.*}\n {3}then {"key":"a","ids":"1"}$/m)
        assert.match(
          text.output,
          /^ {3}dead letter: it never got in \(by its key; .*\n {3}error TypeError: cannot handle 3\n {3}dead letter 1 in the database: parked$/m
        )
        assert.match(text.output, /\nthe stored row is the same\n$/)
        assert.notInclude(text.output, "\u001b")
        const json = yield* explain(
          "hours",
          "key=a",
          "window_size=1h",
          `window_start=${new Date(noon).toISOString()}`,
          "--json"
        )
        const [found] = JSON.parse(json.output) as ReadonlyArray<Record<string, unknown>>
        assert.deepInclude(found, { projection: "watch", build: 1, same: true, table: "hours", omitted: 0 })
        assert.deepStrictEqual(
          (found!["events"] as ReadonlyArray<{ outcome: string }>).map(({ outcome }) => outcome),
          ["applied", "applied", "dead_letter"]
        )
        yield* query("change the row", () => on.sql`update watch_v1.counts set events = 7`)
        const differs = yield* explain("watch_v1.counts", "a")
        assert.strictEqual(differs.code, 3)
        assert.match(differs.output, /^the stored row differs: events is 7, and the replay gives 2$/m)
        for (const [code, message, ...args] of [
          [2, "no table and no window called 'handeld'\ntry: did you mean handled?", "handeld", "a"],
          [
            2,
            "the key of hours has the columns key, window_size, window_start; window_size is missing",
            "hours",
            "key=a"
          ],
          [
            2,
            "hours has no windows of the size '1 hour'\ntry: one of 1h",
            "hours",
            "key=a",
            "window_size=1 hour",
            "window_start=0"
          ],
          [
            1,
            "no event that watch processed concerns the row b of handled, and there is no such row\ntry: one of the keys next to it: a",
            "handled",
            "b"
          ],
          [2, "projection watch has no build 9\ntry: one of watch_v1", "watch_v9.handled", "a"]
        ] as ReadonlyArray<[number, string, ...ReadonlyArray<string>]>) {
          const failed = yield* explain(...args)
          assert.strictEqual(failed.code, code)
          assert.include(failed.errors, message)
        }
      })
    ),
  60_000
)
