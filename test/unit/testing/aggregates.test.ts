// The kit for aggregates: states of specifications, properties for any commands, and files of samples.
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Schema from "effect/Schema"
import { afterAll, describe, expect, test } from "vitest"
import { AlertCase, CaseOpened } from "../../../aggregates/alert-case.ts"
import { Aggregate, Event, Topic } from "../../../src/index.ts"
import { AggregateTest, EventHistory } from "../../../src/testing/testing.ts"

describe("a specification", () => {
  const opened = CaseOpened.make({ case_id: "c", at: 1, entity_id: "e", score: 5 })
  const of = AggregateTest.make(AlertCase).given([opened])
  test("fills the id of its stream in commands that leave it out", () => {
    of.when({ type: "acknowledge", at: 2, by: "ann" }).then([
      { type: "case.acknowledged", case_id: "c", at: 2, by: "ann" }
    ])
  })
  test("compares the state after its events", () => {
    of.thenState({ status: "open", level: 0 })
    of.when({ type: "escalate", at: 2 }).thenState({ level: 1 })
    expect(() => of.thenState({ level: 1 })).toThrow(
      /the state of alert-case\s+expected\s+\{"level":1\}\s+was\s+\{"status":"open"/
    )
  })
  const opens = { at: 1, entity_id: "e", score: 5 }
  test.each<readonly [string, () => unknown, RegExp]>([
    [
      "a command that does not fit its schema",
      () => of.when({ type: "acknowledge", at: "now", by: "ann" } as never),
      /^InvalidCommand: command acknowledge of alert-case is not valid: Expected [^]*at \["at"\]/
    ],
    [
      "a command that the aggregate does not have",
      () => of.when({ type: "forget" } as never),
      /^InvalidCommand: command forget of alert-case is not valid: aggregate alert-case has no command "forget"/
    ],
    ["a command that is no object", () => of.when(null as never), /^InvalidCommand: .* it is null; give an object/],
    [
      "a command to another stream than that of the events",
      () => of.when({ type: "acknowledge", case_id: "d", at: 2, by: "ann" }),
      /^InvalidCommand: command acknowledge of alert-case is not valid: its `case_id` is "d", but it was sent to "c"/
    ],
    [
      "a first command without the id of its stream",
      () => AggregateTest.make(AlertCase).when({ type: "escalate", at: 2 }),
      /^InvalidCommand: .* its `case_id` is undefined, and nothing before it names the stream; give the id of the stream/
    ],
    [
      "a stream whose id cannot be stored",
      () => AggregateTest.make(AlertCase).when({ type: "escalate", case_id: "", at: 2 }),
      /^InvalidStream: an id of alert-case is empty/
    ],
    [
      "an event of another stream",
      () => of.given([CaseOpened.make({ case_id: "d", ...opens })]),
      /^Error: event 2 of aggregate alert-case cannot be given: the `case_id` .* is "d", which is not the id of its stream/
    ],
    [
      "an event that does not fit its schema",
      () => AggregateTest.make(AlertCase).given([{ ...opened, at: "now" } as never]),
      /^Error: event 1 of aggregate alert-case cannot be given: Expected [^]*at \["at"\]/
    ],
    [
      "a decided event that does not fit its schema",
      () => AggregateTest.make(make({ decide: { count: () => ({ type: "counted", n: 0.5 }) } })).when(count),
      /^AggregateFailed: counter "the stream": command count: the decided event is not valid: /
    ],
    [
      "a decided event of another stream",
      () => AggregateTest.make(make(other())).when({ type: "count", id: "a" } as never),
      /^AggregateFailed: counter "a": command count: the decided event is not valid: the `id` .* is "x", which is not/
    ],
    [
      "functions that throw",
      () =>
        AggregateTest.make(make({ evolve: { counted: () => undefined } }))
          .given([Counted.make({ n: 1 })])
          .when(count),
      /^AggregateFailed: counter "the stream": `evolve` failed: event 1 of type counted: .* returned undefined/
    ]
  ])("refuses %s, as `Aggregate.execute` does", (_, run, message) => {
    expect(String(thrownBy(run))).toMatch(message)
  })
  test("keeps the stream of a command that was rejected for the next one", () => {
    const rejected = AggregateTest.make(AlertCase).when({ type: "escalate", case_id: "c", at: 2 })
    rejected.when({ type: "open", ...opens }).then([opened])
    expect(() => rejected.given([{ ...opened, case_id: "d" }])).toThrow(/event 1 .* is "d", which is not the id/)
  })
  test("that is awaited says how it ends", async () => {
    await expect(Promise.resolve(of)).rejects.toThrow("a specification was awaited; end it with .then([ … ])")
  })
})

const thrownBy = (run: () => unknown): unknown => {
  try {
    return run()
  } catch (error) {
    return error
  }
}
const count = { type: "count", n: 1 } as never
const Counted = Event.make("counted", { n: Schema.Int })
const counter = {
  name: "counter",
  events: [Counted],
  commands: { count: { n: Schema.Int } },
  state: Schema.Struct({ sum: Schema.Finite }),
  initial: { sum: 0 },
  evolve: { counted: ({ sum }: { readonly sum: number }, { n }: { readonly n: number }) => ({ sum: sum + n }) },
  decide: { count: (_: unknown, { n }: { readonly n: number }): unknown => Counted.make({ n }) }
}
const make = (options: object) =>
  Aggregate.make({ ...counter, ...options } as never) as unknown as Aggregate<string, object, object, object, never>
describe("any commands", () => {
  test("go to the stream of the given events, which must be of one stream and fit their schemas", () => {
    const opened = CaseOpened.make({ case_id: "c", at: 1, entity_id: "e", score: 5 })
    AggregateTest.check(AlertCase, { given: [opened], runs: 20 })
    const given = [opened, { ...opened, case_id: "d" }]
    expect(() => AggregateTest.check(AlertCase, { given })).toThrow(/event 2 of aggregate alert-case cannot be given/)
  })
  test("of a sound aggregate pass", () => {
    AggregateTest.check(AlertCase, { runs: 50 })
    AggregateTest.check(make({}), { runs: 20 })
    AggregateTest.check(make({ commands: {}, decide: {} }), { runs: 5 })
  })
  test("whose subject or tag has characters that no text in the store has are refused, and fail no check", () => {
    const Named = Event.make("counted", { name: Schema.String })
    const texts = Schema.Literals(["\u0000", "a\ud800", "ann"])
    const named = (name: Schema.Constraint, of: object) =>
      make({
        events: [Named],
        commands: { count: { name } },
        evolve: { counted: (state: object) => state },
        decide: { count: (_: object, { name: given }: { readonly name: string }) => Named.make({ name: given }) },
        ...of
      })
    const subject = ({ name }: { readonly name: string }) => name
    AggregateTest.check(named(texts, { subject }), { seed: 1 })
    AggregateTest.check(named(texts, { tags: { name: subject } }), { seed: 1 })
    const empty = named(Schema.Literals(["", "ann"]), { subject })
    expect(() => AggregateTest.check(empty, { seed: 1 })).toThrow(/the tags or subjects of an event: .* returned ""/)
  })
  test.each<readonly [string, object, RegExp]>([
    [
      "`decide` that throws",
      {
        decide: {
          count: ({ sum }: { readonly sum: number }, { n }: { readonly n: number }) => {
            if (n > 5 || sum > 5) throw new Error("too much")
            return []
          }
        }
      },
      /aggregate counter: `decide` threw for \{"type":"count","n":\d+\}: too much/
    ],
    [
      "`evolve` that throws",
      {
        evolve: {
          counted: () => {
            throw new Error("no state")
          }
        }
      },
      /`evolve` threw for \{"type":"counted","n":-?\d+\}: no state/
    ],
    ["a decision that is no event", { decide: { count: () => undefined } }, /`decide` of count returned undefined/],
    [
      "an event that cannot be stored",
      { decide: { count: () => ({ type: "counted", n: 0.5 }) } },
      /a decided event cannot be stored and read: /
    ],
    [
      "a state that a snapshot changes",
      { state: Schema.Struct({ sum: Schema.Int }), evolve: { counted: () => ({ sum: 1, more: 2 }) } },
      /a snapshot of the state gives another one: \{"sum":1,"more":2\} became \{"sum":1\}/
    ],
    [
      "a state that does not fit its schema",
      { evolve: { counted: () => ({ sum: "1" }) } },
      /a snapshot of the state cannot be read: /
    ],
    ["an event of another stream", other(), /a decided event has the `id` "x" of another stream/]
  ])("find %s, with the shortest sequence", (_, options, message) => {
    expect(() => AggregateTest.check(make(options), { seed: 1 })).toThrow(message)
    expect(() => AggregateTest.check(make(options), { seed: 1 })).toThrow(/[Ss]hrunk|[Rr]eplay/)
  })
})
function other() {
  const Put = Event.make("counted", { id: Schema.String })
  return {
    id: "id",
    events: [Put],
    commands: { count: { id: Schema.String } },
    evolve: { counted: () => ({ sum: 1 }) },
    decide: { count: () => Put.make({ id: "x" }) }
  }
}

describe("a file of samples", () => {
  const folder = mkdtempSync(join(tmpdir(), "millrace-history-"))
  afterAll(() => rmSync(folder, { recursive: true }))
  const file = join(folder, "counter.ndjson")
  const Counts = (events: ReadonlyArray<unknown>) => Topic.events("counts", { events: events as never, key: () => "" })
  const upcast = Counted.upcast({ n: Schema.Int, by: Schema.String }, ({ n }) => ({ n, by: "" }))

  test("that does not exist yet is recorded once, from the schemas", () => {
    expect(() => EventHistory.check(AlertCase, join(folder, "none"))).toThrow(
      /none does not exist; create it once with EventHistory.record/
    )
    expect(EventHistory.record(Counts([Counted]), file)).toBe(3)
    const text = readFileSync(file, "utf8")
    expect(JSON.parse(text.split("\n")[0]!)).toMatchObject({
      type: "counted",
      schemaVersion: 1,
      value: { type: "counted" }
    })
    expect(EventHistory.record(Counts([Counted]), file)).toBe(0)
    expect(readFileSync(file, "utf8")).toBe(text)
    EventHistory.check(Counts([Counted]), file)
  })
  test("fails declarations that no longer read it, with the event type and what to do", () => {
    const changed = Event.make("counted", { n: Schema.Int, by: Schema.String })
    expect(() => EventHistory.check(Counts([changed]), file)).toThrow(
      /the declarations of topic counts cannot read events that are stored:\s+event type counted, version 1: .*by.*\s+try: declare the change as a new version of the event type \(`upcast`\)\n/
    )
    expect(() => EventHistory.check(Counts([Event.make("recounted", {})]), file)).toThrow(
      /topic counts has no event type "counted"[^]*\ntry: keep event types that have stored events in `events`\n/
    )
    const broken = Counted.upcast({ n: Schema.Int }, () => {
      throw new Error("no upcast")
    })
    expect(() => EventHistory.check(Counts([broken]), file)).toThrow(
      /event type counted, version 1: the upcaster of event type counted to version 2 threw: no upcast\ntry: correct the upcaster\n/
    )
  })
  test("must have samples of each declared version, which `record` adds behind the others", () => {
    expect(() => EventHistory.check(Counts([upcast]), file)).toThrow(
      /has no sample of counted, version 2. Run EventHistory.record once/
    )
    const before = readFileSync(file, "utf8")
    expect(EventHistory.record(Counts([upcast]), file, { samples: 2 })).toBe(2)
    expect(readFileSync(file, "utf8").startsWith(before)).toBe(true)
    EventHistory.check(Counts([upcast]), file)
    // the version that is stored must stay declared
    expect(() => EventHistory.check(Counts([Counted]), file)).toThrow(
      /version 2: event type counted has no version 2, the newest is 1/
    )
  })
  test("takes stored events instead, the first of each version of each type", () => {
    const stored = join(folder, "stored.ndjson")
    const sample = (n: number) => ({
      type: "counted",
      schemaVersion: undefined,
      value: JSON.stringify({ type: "counted", n })
    })
    expect(EventHistory.record(Counts([Counted]), stored, { stored: [sample(1), sample(2)] })).toBe(1)
    expect(readFileSync(stored, "utf8")).toBe('{"type":"counted","schemaVersion":1,"value":{"type":"counted","n":1}}\n')
  })
  test("with a line that is no sample names the line", () => {
    writeFileSync(
      join(folder, "odd"),
      '{"type":"counted","schemaVersion":1,"value":{"type":"counted","n":1}}\n{"type":5}\n'
    )
    expect(() => EventHistory.check(Counts([Counted]), join(folder, "odd"))).toThrow(/line 2 of .*odd is no sample/)
    appendFileSync(join(folder, "odd"), "{")
    expect(() => EventHistory.check(Counts([Counted]), join(folder, "odd"))).toThrow(/line 2/)
  })
  test("of an aggregate works the same", () => {
    const cases = join(folder, "cases.ndjson")
    expect(EventHistory.record(AlertCase, cases)).toBeGreaterThan(0)
    EventHistory.check(AlertCase, cases)
  })
  test("of a topic without event types is refused", () => {
    const plain = Topic.records("plain", { value: { id: Schema.String }, key: "id" })
    expect(() => EventHistory.record(plain as never, file)).toThrow(/topic plain has no event types/)
  })
})
