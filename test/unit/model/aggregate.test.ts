// What `Aggregate.make` declares: a source with keys, times and tags, the codecs of its commands and state, and what it refuses.
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Aggregate, Event, InvalidDeclaration, InvalidOption } from "../../../src/index.ts"

class Full extends Schema.TaggedError<Full>()("Full", { course_id: Schema.String, seats: Schema.Int }) {}
const of = { course_id: Schema.String, at: Schema.Finite }
const Opened = Event.make("course.opened", { ...of, seats: Schema.Int })
const Booked = Event.make("course.booked", of).upcast({ ...of, student: Schema.String }, (v1) => ({
  ...v1,
  student: "unknown"
}))
const booking = { course_id: "c1", at: 2, student: "ann" }
const valid = {
  name: "course",
  events: [Opened, Booked],
  id: "course_id",
  eventTime: "at",
  version: 3,
  commands: { open: { ...of, seats: Schema.Int }, book: { ...of, student: Schema.String, until: Schema.Date } },
  state: Schema.Struct({ seats: Schema.Int, taken: Schema.Int, since: Schema.Date }),
  initial: { seats: 0, taken: 0, since: new Date(0) },
  tags: {
    course: ({ course_id }: { readonly course_id: string }) => course_id,
    student: (event: object) => ("student" in event ? ["all", String(event.student), "all"] : undefined)
  },
  subject: (event: object) => ("student" in event ? String(event.student) : undefined),
  evolve: {
    "course.opened": (state: object, { seats }: { readonly seats: number }) => ({ ...state, seats }),
    "course.booked": (state: { readonly taken: number }) => ({ ...state, taken: state.taken + 1 })
  },
  decide: {
    open: (_: object, { at, course_id, seats }: never) => ({ type: "course.opened", course_id, at, seats }),
    book: ({ seats, taken }: { seats: number; taken: number }, { at, course_id, student }: typeof booking) =>
      taken < seats ? { type: "course.booked", course_id, at, student } : new Full({ course_id, seats })
  }
}
const make = (options: object) => Aggregate.make({ ...valid, ...options } as never) as unknown as Aggregate.Any

describe("an aggregate is a source", () => {
  const course = make({})
  const booked = Booked.make({ course_id: "c1", at: 5.5, student: "ann" })
  test("with the key, event time, version and codec of its events", () => {
    expect(course).toMatchObject({ kind: "aggregate", partitions: 16, retentionMs: undefined, keyField: "course_id" })
    expect(course.types).toEqual(["course.opened", "course.booked"])
    expect([course.keyOf(booked), course.timeOf?.(booked), course.versionOf(booked)]).toEqual(["c1", 5, 2])
    expect(course.decode(JSON.parse(course.stringify(booked)!), 2)).toEqual(booked)
    expect(course.decode({ type: "course.booked", course_id: "c1", at: 1 }, 1)).toMatchObject({ student: "unknown" })
    expect(() => course.decode({ type: "course.closed" })).toThrow(/course has no event type "course.closed"/)
  })
  test("whose events have no keys if it declares no `id`, and the time of their append without `eventTime`", () => {
    const keyless = make({ id: undefined, eventTime: undefined })
    expect([keyless.keyOf(booked), keyless.timeOf, keyless.id]).toEqual(["", undefined, undefined])
  })
  test("with tags and subjects, each once", () => {
    expect(course.tagNames).toEqual(["course", "student"])
    expect(course.tagsOf(booked)).toEqual(["course:c1", "student:all", "student:ann"])
    expect(course.tagsOf(Opened.make({ course_id: "c1", at: 1, seats: 2 }))).toEqual(["course:c1"])
    expect(course.subjectsOf(booked)).toEqual(["ann"])
    const apart = make({ subject: ({ student }: never, { tenant }: { tenant?: string }) => `${tenant}/${student}` })
    expect(apart.subjectsOf(booked, { tenant: "acme" })).toEqual(["acme/ann"])
    expect(apart.subjectsOf(booked)).toEqual(["undefined/ann"])
  })
  test("takes a snapshot after 200 events by default", () => {
    expect(
      [course, make({ snapshot: { every: 7 } }), make({ snapshot: false })].map((one) => one.snapshotEvery)
    ).toEqual([200, 7, undefined])
  })
})

describe("an aggregate's commands and state", () => {
  const course = make({})
  test("commands are decoded and encoded by their fields", () => {
    const json = { type: "open", course_id: "c", at: 1, seats: 2, extra: true }
    expect(course.decodeCommand(json)).toEqual({ type: "open", course_id: "c", at: 1, seats: 2 })
    expect(() => course.decodeCommand({ ...json, seats: "2" })).toThrow(/seats/)
    expect(() => course.encodeCommand({ ...json, seats: 0.5 })).toThrow(/seats/)
    for (const type of ["close", "toString", undefined, null])
      expect(() => course.decodeCommand({ ...json, type })).toThrow(
        `aggregate course has no command ${JSON.stringify(type)}; it has open, book`
      )
    expect(() => course.decodeCommand(null)).toThrow(/has no command/)
  })
  test("a state survives its JSON", () => {
    const state = { seats: 1, taken: 0, since: new Date(5) }
    const json = JSON.parse(JSON.stringify(course.encodeState(state)))
    expect(json).toEqual({ seats: 1, taken: 0, since: "1970-01-01T00:00:00.005Z" })
    expect(course.decodeState(json)).toEqual(state)
    expect(() => course.decodeState({ ...json, seats: "many" })).toThrow(/seats/)
  })
  test("decides on the state, with one event, several, none, or a rejection", () => {
    const open = { type: "open", course_id: "c", at: 1, seats: 1 }
    expect(course.decide(course.initial, open)).toEqual([{ type: "course.opened", course_id: "c", at: 1, seats: 1 }])
    expect(course.decide(course.initial, { type: "book", course_id: "c" })).toBeInstanceOf(Full)
  })
  test.each([
    [undefined, "returned undefined; it must return an event, an array of events, or a rejection"],
    [null, "returned null"],
    ["no", 'returned "no"'],
    [new Error("no"), "returned an error without a _tag"]
  ])("a decision that is %s is an error that says what is allowed", (decision, message) => {
    const { decide } = make({ decide: { ...valid.decide, open: () => decision } })
    expect(() => decide({}, { type: "open" })).toThrow(`aggregate course: \`decide\` of open ${message}`)
  })
  test("a new state that is undefined is an error", () => {
    const { evolve } = make({ evolve: { ...valid.evolve, "course.opened": () => undefined } })
    expect(() => evolve({}, { type: "course.opened" })).toThrow(
      "aggregate course: `evolve` of course.opened returned undefined; it must return the new state"
    )
  })
  test.each([[""], [5], [["a", ""]], [null], ["x".repeat(1_001)]])("a tag that is %j is an error", (given) => {
    const { subjectsOf, tagsOf } = make({ tags: { student: () => given }, subject: () => given })
    const returned = /returned .* for an event of type course.opened; it must return a text of 1 to 1000 characters/
    expect(() => tagsOf({ type: "course.opened" })).toThrow(/aggregate course: the tag `student` returned/)
    expect(() => tagsOf({ type: "course.opened" })).toThrow(returned)
    expect(() => subjectsOf({ type: "course.opened" })).toThrow(returned)
  })
})

describe("an aggregate is refused", () => {
  const refuses = (title: string, options: object, message: RegExp | string, kind: unknown = InvalidDeclaration) =>
    test(title, () => {
      expect(() => make(options)).toThrow(message)
      expect(() => make(options)).toThrow(kind as typeof Error)
    })
  refuses("with a name that a topic cannot have", { name: "a b" }, /aggregate "a b": the name is not allowed/)
  refuses("without a name", { name: undefined }, /`name` is missing/)
  for (const option of ["events", "commands", "state", "initial", "evolve", "decide"])
    refuses(`without ${option}`, { [option]: undefined }, `\`${option}\` is missing; declare it`)
  refuses("with an unknown option", { stat: 1 }, /it has no option `stat`; did you mean `state`\?/)
  refuses("with no event type", { events: [], evolve: {} }, /declares no event type/, Error)
  refuses("with an event type twice", { events: [Opened, Opened, Booked] }, /an event type twice/, Error)
  refuses(
    "with something else among the events",
    { events: [{}] },
    /`events`: its element 0 is {}, which is no event type/
  )
  refuses("with events that are no array", { events: Opened }, /`events`: it is .*; list event types/)
  refuses(
    "with fields that are no schemas",
    { commands: { open: { at: 1 } } },
    /command open: `at` is 1, which is no schema/
  )
  refuses("with a command that has a field `type`", { commands: { open: { type: Schema.String } } }, /called `type`/)
  refuses("with a command's name that no path can have", { commands: { "a/b": {} } }, /the name "a\/b" is not allowed/)
  refuses("with a state that is no schema", { state: {} }, /`state`: it is {}, which is no schema/)
  refuses(
    "with an initial state of another shape",
    { initial: { seats: 0 } },
    /`initial`: it does not fit the schema of the state/
  )
  const { open, ...without } = valid.decide
  refuses(
    "if a command is not decided",
    { decide: without },
    /`decide`: it has no function for the command open; add one/
  )
  refuses(
    "if an unknown command is decided",
    { decide: { ...valid.decide, close: open } },
    /`decide`: it has a function for `close`, which is no command of the aggregate; known are open, book/
  )
  refuses("if an event is not evolved", { evolve: {} }, /`evolve`: it has no function for the event type course.opened/)
  refuses(
    "if `evolve` is no object",
    { evolve: open },
    /`evolve`: it is [^]*; give an object with one function for each event type/
  )
  refuses(
    "with an `id` that an event lacks",
    { id: "student" },
    /`id`: event type course.opened has no field `student`/
  )
  const keyed = { ...valid.commands, open: { at: Schema.Finite, seats: Schema.Int } }
  refuses("with an `id` that a command lacks", { commands: keyed }, /`id`: command open has no field `course_id`/)
  refuses(
    "with an `id` that is no text",
    { id: "at" },
    /`id`: the field `at` of event type course.opened is never a text/
  )
  refuses("with an `id` that is a function", { id: () => "" }, /`id`: it is .*; give the name of a field/)
  refuses(
    "with an event time that events lack",
    { eventTime: "when" },
    /`eventTime`: event type course.opened has no field `when`/
  )
  refuses("with an event time that is a text", { eventTime: "course_id" }, /is never a number/)
  refuses("with version 0", { version: 0 }, /aggregate course: version is 0/, InvalidOption)
  refuses("with no partition", { partitions: 0 }, /aggregate course: partitions is 0/, InvalidOption)
  refuses("with a snapshot after no event", { snapshot: { every: 0 } }, /snapshot.every is 0/, InvalidOption)
  refuses("with an unknown option of snapshots", { snapshot: { each: 5 } }, /`snapshot`: it has no option `each`/)
  refuses("with one rejection", { rejections: Full }, /`rejections`: it is .*; list classes/)
  refuses("with a rejection that is no class", { rejections: ["Full"] }, /`rejections`: its element 0 is "Full"; list/)
  refuses("with tags that are no object", { tags: ["course"] }, /`tags`: it is \["course"\]; give an object/)
  refuses("with a tag's name that has a colon", { tags: { "a:b": () => "" } }, /`tags`: the name "a:b" is not allowed/)
  refuses(
    "with a tag that is no function",
    { tags: { course: "course_id" } },
    /the tag `course` is string; it must be a function/,
    Error
  )
  refuses(
    "with an asynchronous tag",
    { tags: { course: async () => "" } },
    /the tag `course` is an async function/,
    Error
  )
  refuses("with an asynchronous subject", { subject: async () => "" }, /`subject` is an async function/, Error)
})
