// The history of a key: what each of its events did to its rows, what other keys did to them, and what a replay cannot know.
import { afterAll, afterEach, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Application, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { partitionOf } from "../../../src/model/partitioner.ts"
import { query } from "../../../src/postgres/client/client.ts"
import * as Letters from "../../../src/postgres/store/dead-letters.ts"
import { appendRetryRecords } from "../../../src/system/dead-letters/projections.ts"
import { keyHistory, type KeyHistoryRequest, type ProjectionHistory } from "../../../src/system/key-history.ts"
import { keyHistoryJson } from "../../../src/system/key-history-json.ts"
import { application, events, fails } from "../../support/dead-letter-application.ts"
import { type Engine, engine, processed } from "../../support/engine.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
afterEach(() => void (fails.for = new Set(["bad"])))

const noon = 1_700_000_000_000 - (1_700_000_000_000 % 3_600_000)
const event = (id: string, key: string, at = 0, does = "") => ({ id, key, at: noon + at * 3_600_000, does })

/** Moves of money: an event is of the account that pays, and changes the rows of both, and the one row of the day. */
const moves = Topic.records("h.moves", {
  value: { id: Schema.String, from: Schema.String, to: Schema.String, cents: Schema.Int },
  id: "id",
  key: "from",
  partitions: 4
})
const accounts = Window.global("h_accounts", { key: { account: Schema.String }, aggregate: { cents: Agg.sum } })
const days = ReadModel.table("h_days", { columns: { day: Schema.String, last: Schema.String }, primaryKey: ["day"] })
const receipts = ReadModel.table("h_receipts", {
  columns: { id: Schema.String, cents: Schema.Int },
  primaryKey: ["id"]
})
const bank = Application.make({
  name: "bank",
  projections: [
    Projection.async(
      Projection.make({
        name: "ledger",
        version: 1,
        source: moves,
        writes: [accounts, days, receipts],
        handle: ({ cents, from, id, to }, out) => {
          out.add(accounts, { account: from, cents: -cents })
          out.add(accounts, { account: to, cents })
          out.upsert(days, { day: "today", last: id })
          out.upsert(receipts, { id, cents })
        }
      })
    )
  ]
})
const move = (id: string, from: string, to: string, cents = 5) => ({ id, from, to, cents })

const historyOf = Effect.fnUntraced(function* (
  { application: app, log, sql }: Engine,
  key: string,
  more: Partial<KeyHistoryRequest> = {}
) {
  const context = { application: app as Application.Any, sql, log }
  const request = { key, mostEvents: 100, mostRecords: 10_000, isAll: false, onProgress: () => {}, ...more }
  return (yield* keyHistory(context, request)) as ReadonlyArray<ProjectionHistory>
})
/** A line for each step: the position, the key of another key's event, what became of it, and the rows that it changed. */
const linesOf = ({ rows, steps }: ProjectionHistory, key: string) =>
  steps.map(({ changes, key: own, outcome, position, retries }) =>
    [
      `${position}${retries === undefined ? "" : ` of ${retries}`}${own === key ? "" : ` by ${own}`}`,
      outcome,
      changes
        .map(({ after, row }) => {
          const { name } = rows.find(({ id }) => id === row)!
          return `${name} ${JSON.stringify(after ?? null)}`
        })
        .toSorted()
        .join(" ")
    ].join(": ")
  )
const sameOf = ({ rows }: ProjectionHistory) =>
  Object.fromEntries(
    rows.map(({ differences, key, name, others }) => [
      `${name} ${Object.values(key).join(" ")}`,
      `${differences === undefined ? "not compared" : differences.length === 0 ? "same" : "differs"}, ${others} others`
    ])
  )
const test = (name: string, app: Application.Any, body: (made: Engine) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(engine(root, app), body)), 60_000)

test(
  "each event of the key has what its rows were after it, whatever their keys are; duplicates and other keys change nothing",
  application() as never,
  Effect.fnUntraced(function* (made) {
    yield* processed(made, events, [event("1", "a"), event("2", "b"), event("3", "a"), event("3", "a")])
    const [watch, other] = yield* historyOf(made, "a")
    assert.deepInclude(watch!, { projection: "watch", version: 1, build: 1, omitted: 0, left: 0, notes: [] })
    assert.deepStrictEqual(linesOf(watch!, "a"), [
      `0: applied: counts {"key":"a","events":1} handled {"key":"a","ids":"1"} hours {"key":"a","window_size":"1h","window_start":${noon},"events":1} whole {"id":"1","n":1}`,
      `2: applied: counts {"key":"a","events":2} handled {"key":"a","ids":"1 3"} hours {"key":"a","window_size":"1h","window_start":${noon},"events":2} whole {"id":"3","n":1}`,
      "3: duplicate: "
    ])
    assert.deepStrictEqual(sameOf(watch!), {
      "counts a": "same, 0 others",
      "handled a": "same, 0 others",
      [`hours a 1h ${noon}`]: "same, 0 others",
      "whole 1": "same, 0 others",
      "whole 3": "same, 0 others"
    })
    assert.deepStrictEqual(linesOf(other!, "a").at(-1), `3: applied: everything {"key":"a","events":3}`)
    assert.deepStrictEqual(
      (yield* historyOf(made, "nobody")).map(({ rows, steps }) => [rows.length, steps.length]),
      [
        [0, 0],
        [0, 0]
      ]
    )
  })
)

test(
  "dead letters change nothing until they are retried, and late events are said",
  application() as never,
  Effect.fnUntraced(function* (made) {
    yield* processed(made, events, [event("1", "a"), event("2", "a", 0, "bad"), event("4", "a", 2), event("5", "a", 0)])
    const outcomes = ([watch]: ReadonlyArray<ProjectionHistory>) =>
      watch!.steps.map(({ outcome, position, retries }) => `${position} ${outcome} ${retries ?? ""}`.trim())
    const before = yield* historyOf(made, "a")
    assert.deepStrictEqual(outcomes(before), ["0 applied", "1 dead letter", "2 applied", "3 applied"])
    fails.for.clear()
    const letters = yield* query("read", () => Letters.retryable(made.sql, { statuses: ["parked"], limit: 10 }))
    yield* appendRetryRecords(made.sql, made.log, letters, "tester")
    yield* processed(made, events, [])
    const after = yield* historyOf(made, "a")
    // the handler is another one now: the replay does not fail, so the retry finds no dead letter
    assert.deepStrictEqual(outcomes(after), ["0 applied", "1 applied", "2 applied", "3 applied", "4 duplicate 1"])
    assert.isTrue(after[0]!.rows.every(({ differences }) => differences !== undefined))
  })
)

test(
  "rows that other keys write, also from other partitions, have their changes with the keys that made them",
  bank,
  Effect.fnUntraced(function* (made) {
    const payers = ["p", "q", "r", "s", "t", "u"]
    const payer = payers.find((key) => partitionOf(key, 4) !== partitionOf("me", 4))!
    yield* processed(made, moves, [move("1", "me", "x", 7)])
    yield* processed(made, moves, [move("2", payer, "me", 10), move("2b", payer, "y", 1), move("2c", payer, "y", 1)])
    yield* processed(made, moves, [move("3", "me", "x", 1)])
    const [found] = yield* historyOf(made, "me")
    // the partition of the key alone gives another row, so all are replayed
    assert.strictEqual(found!.isComplete, true)
    assert.deepStrictEqual(linesOf(found!, "me"), [
      `0: applied: h_accounts {"account":"me","cents":-7} h_accounts {"account":"x","cents":7} h_days {"day":"today","last":"1"} h_receipts {"id":"1","cents":7}`,
      `0 by ${payer}: applied: h_accounts {"account":"me","cents":3} h_days {"day":"today","last":"2"}`,
      `1 by ${payer}: applied: h_days {"day":"today","last":"2b"}`,
      `2 by ${payer}: applied: h_days {"day":"today","last":"2c"}`,
      `1: applied: h_accounts {"account":"me","cents":2} h_accounts {"account":"x","cents":8} h_days {"day":"today","last":"3"} h_receipts {"id":"3","cents":1}`
    ])
    assert.deepStrictEqual(sameOf(found!), {
      "h_accounts me": "same, 1 others",
      "h_accounts x": "same, 0 others",
      "h_days today": "same, 3 others",
      "h_receipts 1": "same, 0 others",
      "h_receipts 3": "same, 0 others"
    })
  })
)

test(
  "a row that was changed by hand is not the replay's, a short history has the row before it, and a bounded one says what it left",
  bank,
  Effect.fnUntraced(function* (made) {
    yield* processed(
      made,
      moves,
      Array.from({ length: 6 }, (_, i) => move(String(i), "me", "x", 1))
    )
    const [short] = yield* historyOf(made, "me", { mostEvents: 2 })
    assert.deepStrictEqual([short!.steps.length, short!.omitted], [2, 4])
    const row = short!.rows.find(({ key }) => key["account"] === "me")!
    assert.deepStrictEqual([row.before?.["cents"], row.replayed?.["cents"], row.stored?.["cents"]], [-4, -6, -6])
    const [cut] = yield* historyOf(made, "me", { mostRecords: 3 })
    assert.deepStrictEqual([cut!.steps.length, cut!.left], [3, 3])
    assert.match(cut!.notes[0]!, /ended after 3 of 6 records/)
    assert.isTrue(cut!.rows.every(({ differences }) => differences === undefined))
    yield* query("change the row", () => made.sql`update ledger_v1.h_accounts set cents = 99 where account = 'me'`)
    const found = yield* historyOf(made, "me")
    assert.strictEqual(sameOf(found[0]!)["h_accounts me"], "differs, 0 others")
    const json = keyHistoryJson("me", found)
    const rows = json.projections.flatMap((one) => ("rows" in one ? one.rows : []))
    assert.deepStrictEqual(
      rows.filter(({ same }) => same === false).map(({ key, other_keys: others, stored }) => [key, others, stored]),
      [[{ account: "me" }, 0, { account: "me", cents: 99 }]]
    )
    yield* query(
      "delete",
      () => made.sql`update millrace.log_head h set start_position = 1 from millrace.log_topic t
        where t.topic_id = h.topic_id and t.name = ${moves.name} and h.partition = ${partitionOf("me", 4)}`
    )
    const [gone] = yield* historyOf(made, "me")
    assert.match(gone!.notes[0]!, /no longer has the positions 0 to 0/)
    assert.isTrue(gone!.rows.every(({ differences }) => differences === undefined))
  })
)
