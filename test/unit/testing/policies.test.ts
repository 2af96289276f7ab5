// Policies and timers in the test kit: commands that are sent, timers that are set, cancelled and fire by the clock, and refused calls.
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import {
  Aggregate,
  Application,
  Event,
  InvalidDeclaration,
  Policy,
  Projection,
  ReadModel,
  Topic
} from "../../../src/index.ts"
import { aggregatesOf } from "../../../src/model/application.ts"
import { ProjectionTest } from "../../../src/testing/testing.ts"

const hour = 3_600_000
const Asked = Event.make("inquiry.asked", { order_id: Schema.String, at: Schema.Int })
const inquiryNamed = <const Name extends string>(name: Name) =>
  Aggregate.make({
    name,
    id: "order_id",
    events: [Asked],
    commands: { ask: { order_id: Schema.String, at: Schema.Int }, close: { order_id: Schema.String } },
    state: Schema.Struct({ asked: Schema.Boolean }),
    initial: { asked: false },
    evolve: { "inquiry.asked": () => ({ asked: true }) },
    decide: { ask: (_, { type: _type, ...data }) => Asked.make(data), close: () => [] }
  })
const Inquiry = inquiryNamed("inquiry")
const Unlisted = inquiryNamed("unlisted")
const Paid = Event.make("order.paid", { order_id: Schema.String, at: Schema.Int })
const Scanned = Event.make("order.scanned", { order_id: Schema.String, at: Schema.Int })
const orders = Topic.events("orders", { events: [Paid, Scanned], key: "order_id", eventTime: "at" })
const open = ReadModel.table("open_orders", { columns: { order_id: Schema.String }, primaryKey: ["order_id"] })

// "no scan within 48 hours of payment"
const scans = Policy.make({
  name: "scans",
  version: 1,
  source: orders,
  writes: [open, Inquiry],
  handle: {
    "order.paid": ({ at, order_id }, out) => {
      out.upsert(open, { order_id })
      out.timer("scan", { at: at + 48 * hour, send: [Inquiry, order_id, { type: "ask", at: at + 48 * hour }] })
    },
    "order.scanned": ({ order_id }, out) => {
      out.delete(open, { order_id })
      out.cancel("scan")
      out.send(Inquiry, order_id, { type: "close" })
    }
  }
})
/** The calls of `out` without their types. */
type Calls = Readonly<Record<"send" | "timer" | "cancel", (...call: ReadonlyArray<unknown>) => void>>
const spec = ProjectionTest.make(scans)
const paid = (order_id: string, at: number) => Paid.make({ order_id, at })
const scanned = (order_id: string, at: number) => Scanned.make({ order_id, at })
const ask = (id: string, at: number) => ({ aggregate: "inquiry", id, command: { type: "ask", order_id: id, at } })

describe("timers", () => {
  test("fire once their time has come, in the order of their times, and not before", () => {
    const given = spec.when([paid("b", 2_000), paid("a", 1_000)])
    given.then({
      open_orders: [{ order_id: "a" }, { order_id: "b" }],
      sent: [],
      timers: [
        { name: "scan", key: "a", at: 1_000 + 48 * hour, ...ask("a", 1_000 + 48 * hour) },
        { name: "scan", key: "b", at: 2_000 + 48 * hour }
      ]
    })
    // the clock is at the time of the newest event
    given.idle(48 * hour - 1_001).then({ sent: [], timers: [{ key: "a" }, { key: "b" }] })
    given.idle(48 * hour - 1_000).then({ sent: [ask("a", 1_000 + 48 * hour)], timers: [{ key: "b" }] })
    given.idle(48 * hour).then({ sent: [ask("a", 1_000 + 48 * hour), ask("b", 2_000 + 48 * hour)], timers: [] })
    given
      .idle(48 * hour)
      .idle(48 * hour)
      .then({ sent: [{ id: "a" }, { id: "b" }] })
  })
  test("do not fire once they are cancelled, in the same batch or a later one, and only for the key of the event", () => {
    const close = { aggregate: "inquiry", id: "a", command: { type: "close" } }
    const idle = "100 hours"
    spec
      .when([paid("a", 1), paid("b", 1), scanned("a", 2)])
      .idle(idle)
      .then({ sent: [close, { id: "b" }], timers: [] })
    spec
      .when([paid("a", 1), paid("b", 1)])
      .when([scanned("a", 2)])
      .idle(idle)
      .then({ sent: [close, { id: "b" }] })
  })
  test("are moved if they are set again under their name, and fire by an event's time as by the clock", () => {
    spec
      .when([paid("a", 1), paid("a", hour)])
      .idle(47.5 * hour)
      .then({ sent: [], timers: [{ key: "a", at: 49 * hour }] })
    spec
      .when([paid("a", 0)])
      .when([paid("b", 48 * hour)])
      .then({ sent: [{ id: "a" }], timers: [{ key: "b" }] })
  })
  test("after a duration are due so long after the commit, whatever the events' times are", () => {
    const policy = Policy.make({
      name: "p",
      version: 1,
      source: orders,
      writes: [Inquiry],
      handle: {
        "order.paid": ({ order_id }, out) =>
          out.timer("t", { after: "1 hour", send: [Inquiry, order_id, { type: "close" }] }),
        "order.scanned": (_, out) => out.cancel("t")
      }
    })
    const at = ProjectionTest.make(policy).at(10 * hour)
    const waiting = at.when([paid("a", 1), paid("b", 1)])
    waiting.then({ sent: [], timers: [{ key: "a", at: 11 * hour }, { key: "b" }] })
    waiting
      .when([scanned("a", 2)])
      .idle("1 hour")
      .then({ sent: [{ id: "b" }], timers: [] })
    at.when([paid("a", 1), scanned("a", 2)]).then({ timers: [] })
    waiting.idle("59 minutes").then({ sent: [] })
  })
  test("of events that failed are not set", () => {
    const failing = Policy.make({
      name: "failing",
      version: 1,
      source: orders,
      writes: [Inquiry],
      handle: ({ at, order_id }, out) => {
        out.timer("t", { at, send: [Inquiry, order_id, { type: "close" }] })
        out.send(Inquiry, order_id, { type: "close" })
        if (order_id === "bad") throw new Error("bad order")
      }
    })
    ProjectionTest.make(failing)
      .when([paid("bad", 1), paid("good", 1)])
      .then({ sent: [{ id: "good" }, { id: "good" }], timers: [], deadLetters: [{ message: "bad order" }] })
  })
})
test("a projection sets timers as a policy does, and a specification says which commands differ", () => {
  const projection = Projection.make({
    name: "p",
    version: 1,
    source: orders,
    writes: [Inquiry],
    handle: {
      "order.paid": ({ at, order_id }, out) => out.timer("t", { at, send: [Inquiry, order_id, { type: "close" }] })
    }
  })
  ProjectionTest.make(projection)
    .when([paid("a", 1)])
    .then({ sent: [{ id: "a", command: { type: "close" } }] })
  expect(() => spec.when([paid("a", 1)]).then({ timers: [{ command: { type: "close" } }] })).toThrow(
    "timers\n  expected"
  )
  expect(() => spec.when([scanned("a", 1)]).then({ sent: [] })).toThrow("sent\n  expected")
})

describe("a call that cannot be stored fails its event, and says what to do:", () => {
  const refused = (call: (out: Calls) => void) => {
    const policy = Policy.make({
      name: "p",
      version: 1,
      source: orders,
      writes: [Inquiry],
      handle: (_, out) => call(out as never)
    })
    let message = ""
    try {
      ProjectionTest.make(policy)
        .when([paid("a", 1)])
        .then({})
    } catch (error) {
      message = (error as Error).message
    }
    return message
  }
  test.each([
    [
      "no aggregate",
      (out: Calls) => out.send(orders, "a", { type: "ask" }),
      'out.send: "orders" is no aggregate; give what `Aggregate.make` declares'
    ],
    [
      "an aggregate that is not in `writes`",
      (out: Calls) => out.send(Unlisted, "a", { type: "ask", at: 1 }),
      "out.send: it was given the aggregate unlisted, which the projection does not write; list it in the projection's `writes`"
    ],
    [
      "a timer for an aggregate that is not in `writes`",
      (out: Calls) => out.timer("t", { at: 1, send: [Unlisted, "a", { type: "ask", at: 1 }] }),
      "out.timer: it was given the aggregate unlisted, which the projection does not write; list it in the projection's `writes`"
    ],
    [
      "an unknown command",
      (out: Calls) => out.send(Inquiry, "a", { type: "drop" }),
      'out.send: aggregate inquiry has no command "drop"; it has ask, close'
    ],
    [
      "no command",
      (out: Calls) => out.send(Inquiry, "a"),
      "out.send: the command is undefined; give an object with its `type` and fields"
    ],
    [
      "the id of another stream",
      (out: Calls) => out.send(Inquiry, "a", { type: "close", order_id: "b" }),
      'out.send: the command\'s `order_id` is "b", and it is sent to "a"; leave the field out'
    ],
    [
      "an empty id",
      (out: Calls) => out.send(Inquiry, "", { type: "close" }),
      'out.send: the id of the inquiry is ""; give a text that is not empty'
    ],
    [
      "an id that is too long",
      (out: Calls) => out.send(Inquiry, "x".repeat(1_001), { type: "close" }),
      "out.send: the id of the inquiry has 1001 characters; it may have 1000"
    ],
    [
      "an id with NUL",
      (out: Calls) => out.send(Inquiry, "a\u0000", { type: "close" }),
      "out.send: the id of the inquiry has a NUL character or half a surrogate pair; leave it out"
    ],
    [
      "no time",
      (out: Calls) => out.timer("t", { at: Number.NaN, send: [Inquiry, "a", { type: "close" }] }),
      'out.timer: the timer "t" is set to NaN; give a time in epoch milliseconds, or `after` a duration'
    ],
    [
      "no name",
      (out: Calls) => out.timer(undefined, { at: 1, send: [Inquiry, "a", { type: "close" }] }),
      "out.timer: the timer's name is undefined; give a text that is not empty"
    ],
    [
      "no timer",
      (out: Calls) => out.timer("t"),
      "out.timer: undefined is no aggregate; give what `Aggregate.make` declares"
    ],
    [
      "no name to cancel",
      (out: Calls) => out.cancel(""),
      'out.cancel: the timer\'s name is ""; give a text that is not empty'
    ]
  ])("%s", (_, call, message) => {
    expect(refused(call)).toBe(message)
  })
  test("wrong fields", () => {
    expect(refused((out) => out.send(Inquiry, "a", { type: "ask", at: "now" }))).toMatch(
      /^out.send: the command "ask" of inquiry does not fit its schema: Expected .*\n? *at \["at"\]/
    )
  })
})

test("an application lists policies among its projections, and refuses what is none", () => {
  const { projections } = Application.make({ name: "a", aggregates: [Inquiry], projections: [], policies: [scans] })
  expect(projections).toEqual([{ lifecycle: "async", projection: scans }])
  expect(() => Application.make({ name: "a", projections: [], policies: [{} as never] })).toThrow(
    "application: element 0 of `policies` is no policy; give what `Policy.make` declares"
  )
})

describe("the aggregates that a policy sends commands to", () => {
  const application = (aggregates: ReadonlyArray<Aggregate.Any>) =>
    Application.make({ name: "a", aggregates, projections: [], policies: [scans] })
  test("are listed in `writes`, apart from what it stores", () => {
    expect([scans.writes, scans.sends]).toEqual([[open], [Inquiry]])
  })
  test("must be declared by the application", () => {
    expect(() => application([Unlisted])).toThrow(
      new InvalidDeclaration({
        what: "application",
        reason:
          "scans sends commands to aggregate inquiry, which the application does not declare; add it to `aggregates`"
      })
    )
    expect(() => application([inquiryNamed("inquiry")])).toThrow(
      "application: scans sends commands to aggregate inquiry, of which the application has another declaration; " +
        "declare the aggregate once and use it in both"
    )
  })
  test("are declared if a projection of the application reads them, as all aggregates that are read", () => {
    const asked = Policy.make({ name: "asked", version: 1, source: Inquiry, handle: {} })
    const { aggregates, ...found } = Application.make({ name: "a", projections: [], policies: [scans, asked] })
    expect([aggregates, aggregatesOf({ aggregates, ...found })]).toEqual([[], [Inquiry]])
  })
  test("keep a projection from running inline or live, where nothing sends commands", () => {
    const policy = Policy.make({ name: "p", version: 1, source: Inquiry, writes: [Inquiry], handle: {} })
    expect(() => Projection.inline(policy)).toThrow(
      "projection p: it cannot run inline: it sends commands to inquiry, and an append sends none; run it with `Projection.async`"
    )
    expect(() => Projection.live(policy)).toThrow(
      "projection p: it sends commands to inquiry, which nothing does when it is read; run it with `Projection.async`"
    )
  })
})

// mistakes that must not compile: the compiler reports a directive above a line without one
const mistakes = () => {
  const base = { name: "p", version: 1, source: orders, writes: [Inquiry] } as const
  // @ts-expect-error a command that the aggregate does not have
  Policy.make({ ...base, handle: (_, out) => out.send(Inquiry, "a", { type: "drop" }) })
  // @ts-expect-error a command whose fields are missing
  Policy.make({ ...base, handle: (_, out) => out.timer("t", { at: 1, send: [Inquiry, "a", { type: "ask" }] }) })
  // @ts-expect-error a topic is no aggregate
  Policy.make({ ...base, handle: (_, out) => out.send(orders, "a", { type: "ask" }) })
  // @ts-expect-error an aggregate that is not in `writes`
  Policy.make({ ...base, handle: (_, out) => out.send(Unlisted, "a", { type: "close" }) })
  Policy.make({
    ...base,
    // @ts-expect-error a timer for an aggregate that is not in `writes`
    handle: (_, out) => out.timer("t", { at: 1, send: [Unlisted, "a", { type: "close" }] })
  })
  // @ts-expect-error no `writes`
  Policy.make({ name: "p", version: 1, source: orders, handle: (_, out) => out.send(Inquiry, "a", { type: "close" }) })
  // @ts-expect-error a table that is not in `writes`
  Policy.make({ ...base, handle: (_, out) => out.upsert(open, { order_id: "a" }) })
}
void mistakes
