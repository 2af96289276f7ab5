// The test kit: what specifications compare, what they report when they fail, and that they need no server and no real time.
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { AlertCase, CaseOpened, CaseResolved, CaseTaken, CaseAcknowledged } from "../../../aggregates/alert-case.ts"
import { Agg, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { AggregateTest, ProjectionTest } from "../../../src/testing/testing.ts"

const minute = 60_000
const visits = Topic.records("visits", {
  value: { id: Schema.String, user: Schema.String, at: Schema.Int },
  key: "user",
  id: "id",
  eventTime: "at"
})
const names = Topic.compacted("names", { value: { user: Schema.String, name: Schema.String }, key: "user" })
const last = ReadModel.table("last", {
  columns: { user: Schema.String, name: Schema.String, at: Schema.Int, n: Schema.Int },
  primaryKey: ["user"]
})
const hours = Window.tumbling("hours", {
  size: "1 hour",
  grace: "5 minutes",
  key: { user: Schema.String },
  aggregate: { n: Agg.count },
  publish: "hours.changed"
})
const greetings = Topic.records("greetings", { value: { user: Schema.String, text: Schema.String }, key: "user" })
const projection = Projection.make({
  name: "visitors",
  version: 1,
  source: visits,
  dedupe: { within: "1 hour" },
  enrich: { names },
  writes: [last, hours, greetings],
  handle: ({ at, user }, out, { names }) => {
    if (user === "bad") throw new Error("bad visitor")
    out.modify(last, { user }, (row) => ({ user, name: names?.name ?? "?", at, n: (row?.n ?? 0) + 1 }))
    out.add(hours, { user, n: 1 })
    out.publish(greetings, { user, text: `hi ${names?.name ?? "stranger"}` })
  }
})
const visit = (user: string, at: number, id = `${user}${at}`) => ({ id, user, at })
const spec = ProjectionTest.make(projection)
const messageOf = (run: () => unknown): string => {
  try {
    run()
  } catch (error) {
    return (error as Error).message
  }
  throw new Error("it did not fail")
}

describe("a projection's specification", () => {
  test("runs a handler that reads `replaying` as a rebuild does, too, and fails if its rows differ", () => {
    const pings = Topic.records("pings", { value: { id: Schema.String }, key: "id" })
    const seen = ReadModel.table("seen", { columns: { id: Schema.String, live: Schema.Boolean }, primaryKey: ["id"] })
    const reading = (changesRows: boolean) =>
      Projection.make({
        name: "pings",
        version: 1,
        source: pings,
        writes: [seen, greetings],
        handle: ({ id }, out, { replaying }) => {
          if (!replaying) out.publish(greetings, { user: id, text: "hi" })
          out.upsert(seen, { id, live: !(changesRows && replaying) })
        }
      })
    const expected = { seen: [{ id: "a", live: true }], published: { greetings: [{ user: "a" }] } }
    ProjectionTest.make(reading(false))
      .when([{ id: "a" }])
      .then(expected)
    const message = messageOf(() =>
      ProjectionTest.make(reading(true))
        .when([{ id: "a" }])
        .then(expected)
    )
    expect(message).toContain("seen, with `replaying`; a handler must not let it change rows")
  })
  test("refuses a message that does not fit in a replay as in live processing, although a replay publishes nothing", () => {
    const notes = Topic.records("notes", { value: { user: Schema.String, n: Schema.Int }, key: "user" })
    const sending = Projection.make({
      name: "notes_of_visits",
      version: 1,
      source: visits,
      writes: [last, notes],
      handle: ({ at, user }, out, { replaying }) => {
        out.publish(notes, { user: user === "nul" ? "\u0000" : user, n: user === "half" ? 0.5 : replaying ? 1 : 1 })
        out.upsert(last, { user, name: "", at, n: 1 })
      }
    })
    ProjectionTest.make(sending)
      .when([visit("ann", 0), visit("half", 1), visit("nul", 2)])
      .then({ last: [{ user: "ann" }], deadLetters: [{ position: 1 }, { position: 2 }] })
  })
  test("compares dead letters if they are expected: a failed event leaves nothing behind, and one with its id is no duplicate", () => {
    const bad = visit("bad", minute)
    spec.when([visit("ann", 0), bad, bad, visit("bob", 2 * minute)]).then({
      last: [{ user: "ann" }, { user: "bob" }],
      deadLetters: [
        { error: "Error", message: "bad visitor", key: "bad", value: JSON.stringify(bad), event_time: minute },
        { error: "Error", position: 2, projection: "visitors", version: 1, topic: "visits" }
      ]
    })
    spec.when([visit("ann", 0)]).then({ deadLetters: [] })
    expect(messageOf(() => spec.when([bad]).then({ deadLetters: [] }))).toMatch("deadLetters")
    expect(messageOf(() => spec.when([bad]).then({}))).toBe("bad visitor")
  })
  test("compares rows, messages and late events; columns that are left out are not compared", () => {
    spec
      .given(names, [{ user: "ann", name: "Ann" }])
      .given(last, [{ user: "bob", name: "Bob", at: 0, n: 5 }])
      .when([visit("ann", 0), visit("bob", minute), visit("ann", 0)])
      .when([visit("ann", 66 * minute), visit("ann", minute, "late")])
      .then({
        last: [
          { user: "bob", n: 6, name: "?" },
          { user: "ann", n: 3, name: "Ann" }
        ],
        hours: [{ user: "ann", window_start: 0, n: 1 }, { user: "bob", n: 1 }, { window_start: 60 * minute }],
        published: {
          greetings: [{ text: "hi Ann" }, { text: "hi stranger" }, { text: "hi Ann" }, { text: "hi Ann" }],
          "hours.changed": [{ user: "ann", n: 1 }, { user: "bob" }, { user: "ann", window_start: 60 * minute }]
        },
        late: [{ window: "hours", window_start: 0 }]
      })
  })
  test("is a value: it can be continued in two ways", () => {
    const common = spec.when([visit("ann", 0)])
    common.when([visit("ann", 1)]).then({ last: [{ n: 2 }] })
    common.then({ last: [{ n: 1 }] })
  })
  test("does not compare what the expectation leaves out", () => {
    spec.when([visit("ann", 0)]).then({})
    spec.when([visit("ann", 0)]).then({ hours: [{}] })
  })
  test("time without events moves the clock, and makes no event late", () => {
    const idle = spec.when([visit("ann", 0)]).idle("3 hours")
    idle.when([visit("ann", 1)]).then({ last: [{ n: 2 }], hours: [{ n: 2 }], late: [] })
  })

  test("reports what was expected and what was found", () => {
    const wrong = () => spec.when([visit("ann", 0)]).then({ last: [{ user: "ann", n: 2 }] })
    expect(messageOf(wrong)).toBe(
      'last\n  expected\n    {"user":"ann","n":2}\n  was\n    {"user":"ann","name":"?","at":0,"n":1}'
    )
    expect(wrong).toThrow(
      expect.objectContaining({ expected: [{ user: "ann", n: 2 }], actual: [{ user: "ann", name: "?", at: 0, n: 1 }] })
    )
  })
  test.each<readonly [string, () => void, string]>([
    ["a row too many", () => spec.when([visit("ann", 0)]).then({ last: [] }), "last\n  expected\n    nothing"],
    ["a row too few", () => spec.when([]).then({ last: [{ user: "ann" }] }), "was\n    nothing"],
    [
      "one row for two",
      () => spec.when([visit("ann", 0)]).then({ last: [{ user: "ann" }, { user: "ann" }] }),
      "last\n"
    ],
    ["a message too many", () => spec.when([visit("ann", 0)]).then({ published: { greetings: [] } }), "greetings\n"],
    [
      "messages in another order",
      () =>
        spec.when([visit("a", 0), visit("b", 1)]).then({ published: { greetings: [{ user: "b" }, { user: "a" }] } }),
      "greetings\n"
    ],
    ["a late event", () => spec.when([visit("a", 90 * minute), visit("a", 0)]).then({ late: [] }), "late\n"],
    ["no late event", () => spec.when([visit("a", 0)]).then({ late: [{}] }), "late\n"]
  ])("fails for %s", (_, run, message) => expect(messageOf(run)).toContain(message))

  test("pairs rows up in any order, whatever the order of their fields", () => {
    const visitors = spec.given(last, [
      { user: "a", name: "x", at: 1, n: 1 },
      { user: "b", name: "x", at: 1, n: 2 },
      { user: "c", name: "y", at: 1, n: 2 }
    ])
    visitors.then({ last: [{ at: 1 }, { n: 2 }, { name: "x" }] })
    visitors.then({ last: [{ name: "x" }, { at: 1 }, { n: 2, name: "x" }] })
    expect(() => visitors.then({ last: [{ name: "y" }, { name: "y" }, { at: 1 }] })).toThrow()
    const json = ReadModel.table("json", {
      columns: { id: Schema.String, of: Schema.Struct({ a: Schema.Int, b: Schema.BigInt }) },
      primaryKey: ["id"]
    })
    const keeper = Projection.make({ name: "p", version: 1, source: visits, writes: [json], handle: () => {} })
    const kept = ProjectionTest.make(keeper).given(json, [{ id: "i", of: { a: 1, b: 2n } }])
    kept.then({ json: [{ of: { b: 2n, a: 1 } }] })
    expect(messageOf(() => kept.then({ json: [] }))).toContain('{"id":"i","of":{"a":1,"b":"2n"}}')
  })
  test("refuses rows of a table that the projection does not write", () => {
    const other = ReadModel.table("other", { columns: { id: Schema.String }, primaryKey: ["id"] })
    expect(() => spec.given(other, [{ id: "a" }]).then({})).toThrow(
      "visitors writes no table other; list it in its `writes`"
    )
  })
  test("throws what the handler throws", () => {
    expect(() => spec.when([visit("ann", 0), visit("bad", 1)]).then({})).toThrow("bad visitor")
  })
  test("throws the error for which the runner would park an event", () => {
    const foreign = Projection.make({
      name: "p",
      version: 1,
      source: visits,
      writes: [last, hours, greetings],
      handle: ({ at, id, user }, out) => {
        if (id === "modify") out.modify(last, { user: "someone" }, (row) => row)
        if (id === "add") out.add(hours, { user: "someone", n: 1 })
        if (id === "publish") out.publish(greetings, { user, text: at as never })
      }
    })
    const of = (id: string) => () =>
      ProjectionTest.make(foreign)
        .when([visit("ann", 0, id)])
        .then({})
    expect(of("modify")).toThrow(/last: no column of the row's key holds the event's key "ann"/)
    expect(of("add")).toThrow(/hours: no column/)
    expect(of("publish")).toThrow(/text/)
    of("fine")()
  })
  test("sees only the declared fields of published values", () => {
    const wide = Projection.make({
      name: "p",
      version: 1,
      source: visits,
      writes: [greetings],
      handle: ({ user }, out) => {
        const more = { user, text: "hi", secret: 1 }
        out.publish(greetings, more)
      }
    })
    expect(
      messageOf(() =>
        ProjectionTest.make(wide)
          .when([visit("ann", 0)])
          .then({ published: { greetings: [] } })
      )
    ).toContain('was\n    {"user":"ann","text":"hi"}')
  })
  test("reports that it was awaited instead of ended with `then`", async () => {
    await expect(async () => await (spec.when([]) as unknown as Promise<void>)).rejects.toThrow(
      "a specification was awaited; end it with .then({ … })"
    )
  })
})

class Down extends Schema.TaggedError<Down>()("Down", {}) {}
class Lookup extends Context.Service<Lookup, { nameOf(user: string): Effect.Effect<string, Down> }>()("test/Lookup") {
  static readonly layer = Layer.succeed(Lookup, {
    nameOf: (user) => (user === "down" ? Effect.fail(new Down()) : Effect.succeed(user.toUpperCase()))
  })
}
const untimed = Topic.records("untimed", { value: { user: Schema.String }, key: "user" })
const slow = Projection.make({
  name: "slow",
  version: 1,
  source: untimed,
  writes: [last],
  handle: ({ user }, out, { meta }) =>
    Effect.gen(function* () {
      if (user === "asleep") yield* Effect.promise(() => new Promise((done) => setTimeout(done, 5)))
      yield* Effect.sleep("1 day")
      const name = yield* (yield* Lookup).nameOf(user)
      out.upsert(last, { user, name, at: yield* Clock.currentTimeMillis, n: meta.eventTime })
    })
})

describe("a specification of a handler that returns Effects", () => {
  const of = ProjectionTest.make(slow, Lookup.layer)

  test("has the services that it was given, and sleeps for no time", () => {
    of.when([{ user: "ann" }]).then({ last: [{ user: "ann", name: "ANN" }] })
  })
  test("sets the clock, for Effects and for events without a time", () => {
    const noon = Date.UTC(2026, 0, 1, 12)
    of.at("2026-01-01T12:00:00Z")
      .when([{ user: "ann" }])
      .then({ last: [{ at: noon, n: noon }] })
    of.at(noon)
      .when([{ user: "a" }])
      .idle("1 hour")
      .when([{ user: "b" }])
      .then({
        last: [
          { user: "a", at: noon },
          { user: "b", at: noon + 60 * minute, n: noon + 60 * minute }
        ]
      })
    of.when([{ user: "ann" }]).then({ last: [{ at: 0 }] })
  })
  test("throws the handler's own error, or fails with it", async () => {
    expect(() => of.when([{ user: "down" }]).then({})).toThrow(Down)
    await expect(Effect.runPromise(Effect.flip(of.when([{ user: "down" }]).thenEffect({})))).resolves.toBeInstanceOf(
      Down
    )
  })
  test("that are asynchronous runs by `thenEffect`, and `then` reports so", async () => {
    const asleep = of.when([{ user: "asleep" }])
    expect(() => asleep.then({})).toThrow("a handler is asynchronous; run .thenEffect({ … }) instead of .then")
    await Effect.runPromise(asleep.thenEffect({ last: [{ name: "ASLEEP" }] }))
    await expect(Effect.runPromise(asleep.thenEffect({ last: [] }))).rejects.toThrow(/expected\s+nothing/)
  })
})

describe("an aggregate's specification", () => {
  const opened = CaseOpened.make({ case_id: "c", at: 1, entity_id: "e", score: 5 })
  const acknowledge = (by: string) => ({ type: "acknowledge", case_id: "c", at: 2, by }) as const
  const of = AggregateTest.make(AlertCase)

  test("compares the events that a command makes", () => {
    of.given([opened])
      .when(acknowledge("ann"))
      .then([CaseAcknowledged.make({ case_id: "c", at: 2, by: "ann" })])
    of.given([opened]).when(acknowledge("ann")).when(acknowledge("ann")).then([])
  })
  test("reports what was expected and what was found", () => {
    expect(() => of.given([opened]).when(acknowledge("ann")).then([])).toThrow(
      'alert-case\n  expected\n    nothing\n  was\n    {"type":"case.acknowledged","case_id":"c","at":2,"by":"ann"}'
    )
    expect(() =>
      of
        .given([opened])
        .when(acknowledge("ann"))
        .then([CaseResolved.make({ case_id: "c", at: 2, resolution: "fixed" })])
    ).toThrow(/expected\s+\{"type":"case.resolved"/)
  })
  test("compares rejections by tag and fields, and distinguishes them from events", () => {
    const taken = of.given([opened]).when(acknowledge("ann")).when(acknowledge("bob"))
    taken.thenRejected("CaseTaken")
    taken.thenRejected("CaseTaken", { by: "ann" })
    expect(() => taken.thenRejected("CaseTaken", { by: "bob" })).toThrow(/"by":"bob"[^]*was[^]*"by":"ann"/)
    expect(() => taken.thenRejected("CaseUnknown")).toThrow(/CaseUnknown[^]*was[^]*CaseTaken/)
    expect(() => taken.then([])).toThrow(/^rejected: .*"by":"ann"/)
    expect(() => taken.then([])).toThrow(expect.objectContaining({ cause: new CaseTaken({ case_id: "c", by: "ann" }) }))
    expect(() => of.given([opened]).when(acknowledge("ann")).thenRejected("CaseTaken")).toThrow(/case.acknowledged/)
  })
  test("keeps the state when a command is rejected", () => {
    of.given([opened]).when(acknowledge("ann")).when(acknowledge("bob")).when(acknowledge("ann")).then([])
  })
  test("reports an expectation before any command", () => {
    expect(() => of.given([opened]).then([])).toThrow("no command was given; add .when({ … }) before .then")
    expect(() => of.given([opened]).thenRejected("CaseTaken")).toThrow("no command was given")
  })
})
