// Decisions over tags: what they read, when they decide again, and that no invariant over several streams is ever broken.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import {
  Aggregate,
  AggregateFailed,
  BoundaryMoved,
  CommandReused,
  EventStore,
  InvalidCommand,
  StreamBusy
} from "../../../src/index.ts"
import { waitingForNoTime } from "../../../src/runner/in-memory.ts"
import {
  Accounts,
  book,
  Booked,
  CourseFull,
  Courses,
  decisions,
  move,
  open,
  Opened,
  Praised,
  race,
  TooMany
} from "../../support/courses.ts"
import { failsWith, memoryStore, withStore } from "../../support/wallet.ts"

const service = (store: EventStore["Service"]) => [EventStore, store] as const
type Store = ReturnType<typeof memoryStore>
const newEvent = (event: { readonly type: string }, tags: ReadonlyArray<string>) => ({
  type: event.type,
  value: JSON.stringify(event),
  eventTime: 0,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: 1,
  headers: {},
  tags
})
/** Another process that praises a course, which matters to no booking, or books it. */
const praise = (store: Store, event = Praised.make({ course: "c" }) as { readonly type: string }) =>
  store.append(
    { aggregate: "courses", stream: "other", expected: "any", events: [newEvent(event, ["course:c"])] },
    globalThis.crypto.randomUUID()
  )
/** A store into which another process appends before each of the first `times` appends. */
const disturbed = (event: { readonly type: string }, times = Infinity): Store => {
  let left = times
  const store: Store = memoryStore((inner) => ({
    appendAll: (...args) =>
      Effect.suspend(() => (left-- > 0 && args[2] !== undefined ? praise(inner as Store, event) : Effect.void)).pipe(
        Effect.andThen(inner.appendAll(...args))
      ) as never
  }))
  return store
}

describe("a decision over tags", () => {
  test("is made on the events of all streams with these tags, and appended with its own tags", async () => {
    const store = memoryStore()
    const run = withStore(store)
    for (const course of ["a", "b", "c", "d", "e"]) await run(Effect.andThen(open(course, 9), book(course, "ann")))
    await run(open("f", 1))
    expect(await failsWith(store)(book("f", "ann"))).toEqual(new TooMany({ student: "ann" }))
    expect(await run(book("f", "bob"))).toEqual({
      version: 2,
      events: [Booked.make({ course: "f", student: "bob" })],
      repeated: false,
      position: { topic: "courses", partition: expect.any(Number), position: expect.any(Number) }
    })
    expect(await failsWith(store)(book("f", "cid"))).toEqual(new CourseFull({ course: "f" }))
    const { events } = await Effect.runPromise(store.load("courses", "f"))
    expect(events.at(-1)?.tags).toEqual(["course:f", "student:bob"])
  })
  test("that decides nothing answers with the stream's version", async () => {
    const run = withStore(memoryStore())
    await run(open("c", 1))
    expect(await run(open("c", 1))).toEqual({ version: 1, events: [], repeated: false, position: undefined })
  })
  test("is made again if an event came between that matters to it", async () => {
    const store = disturbed(Booked.make({ course: "c", student: "bob" }), 1)
    await Effect.runPromise(praise(store, Opened.make({ course: "c", seats: 1 })))
    decisions.bookings = 0
    expect(await failsWith(store)(book("c", "ann"))).toEqual(new CourseFull({ course: "c" }))
    expect(decisions.bookings).toBe(2)
  })
  test("stands if only events of other types came between, and is sent again", async () => {
    const store = disturbed(Praised.make({ course: "c" }), 3)
    await Effect.runPromise(praise(store, Opened.make({ course: "c", seats: 1 })))
    decisions.bookings = 0
    expect(await withStore(store)(book("c", "ann"))).toMatchObject({ version: 1 })
    expect([decisions.bookings, store.calls.filter((call) => call === "readBoundary").length]).toEqual([1, 4])
  })
  test("fails with `StreamBusy` if events come between in each try", async () => {
    const store = disturbed(Praised.make({ course: "c" }))
    await Effect.runPromise(praise(store, Opened.make({ course: "c", seats: 1 })))
    const clock = waitingForNoTime(Effect.runSync(Clock.clockWith(Effect.succeed)))
    const error = await failsWith(store)(Effect.provideService(book("c", "ann"), Clock.Clock, clock))
    expect(error).toBeInstanceOf(StreamBusy)
    expect(error).toMatchObject({ aggregate: "courses", stream: "c" })
  })
  test("with the same command id gets the same answer, and with another command fails", async () => {
    const store = memoryStore()
    const run = withStore(store)
    await run(open("c", 1))
    const options = { commandId: "request 1" }
    const first = await run(book("c", "ann", options))
    expect(await run(book("c", "ann", options))).toEqual({ ...first, repeated: true })
    const rejected = { commandId: "request 2" }
    expect(await failsWith(store)(book("c", "bob", rejected))).toBeInstanceOf(CourseFull)
    await Effect.runPromise(praise(store, Opened.make({ course: "c", seats: 7 })))
    expect(await failsWith(store)(book("c", "bob", rejected))).toMatchObject({ _tag: "CourseFull", course: "c" })
    expect(await failsWith(store)(book("c", "cid", rejected))).toBeInstanceOf(CommandReused)
  })
  test("whose functions throw fails with `AggregateFailed`, and the next one works", async () => {
    const store = memoryStore()
    await withStore(store)(open("c", 1))
    const failing = (options: object) =>
      Aggregate.decideWithin(Courses, {
        stream: "c",
        tags: { course: "c" },
        initial: 0,
        evolve: { "course.opened": (n: number) => n },
        decide: () => [],
        ...options
      } as never)
    const thrown = () => {
      throw new Error("bad luck")
    }
    for (const [options, message] of [
      [{ decide: thrown }, "`decide` failed: bad luck"],
      [{ decide: () => undefined }, "`decide` failed: `decide` returned undefined; it must return an event"],
      [
        { decide: () => ({ type: "nonsense" }) },
        'the decided event is not valid: topic courses has no event type "nonsense"'
      ],
      [{ evolve: { "course.opened": thrown } }, '`evolve` failed: event 1 of "c": bad luck'],
      [{ evolve: { "course.opened": () => undefined } }, "`evolve` of course.opened returned undefined"]
    ] as const) {
      const error = (await failsWith(store)(failing(options))) as Error
      expect(error).toBeInstanceOf(AggregateFailed)
      expect(error.message).toContain(message)
    }
    expect(await withStore(store)(book("c", "ann"))).toMatchObject({ version: 2 })
  })
  test.each([
    [
      { tags: { teacher: "t" } },
      /it names the tag `teacher`, which the aggregate does not declare; it declares course, student/
    ],
    [{ tags: { course: "" } }, /its tag `course` is ""; give a text/],
    [{ tags: {} }, /it has no tag; name at least one/],
    [{ evolve: {} }, /`evolve` has no function/],
    [{ evolve: { "course.closed": () => 0 } }, /`course.closed`, which is no event type of courses/],
    [{ decide: async () => [] }, /`decide` is an async function/]
  ])("that can never work is refused: %j", async (options, message) => {
    const decision = {
      stream: "c",
      tags: { course: "c" },
      initial: 0,
      evolve: { "course.opened": () => 0 },
      decide: () => []
    }
    const error = await failsWith(memoryStore())(Aggregate.decideWithin(Courses, { ...decision, ...options } as never))
    expect(error).toBeInstanceOf(InvalidCommand)
    expect((error as Error).message).toMatch(message)
  })
})

describe("no invariant is broken", () => {
  test("seats of courses are never sold twice, and no student has more than five courses", async () => {
    const store = memoryStore()
    const run = withStore(store)
    for (let course = 0; course < 6; course++) await run(open(`c${course}`, 4))
    const tries = Array.from({ length: 6 * 12 }, (_, i) => book(`c${i % 6}`, `s${Math.floor(i / 6) % 3}`))
    const results = await run(race(tries))
    const { events } = await Effect.runPromise(
      store.readBoundary("courses", {
        tags: Array.from({ length: 6 }, (_, i) => `course:c${i}`),
        types: ["course.booked"]
      })
    )
    expect(events).toHaveLength(results.filter(({ _tag }) => _tag === "Success").length)
    const count = (tag: string) => events.filter(({ tags }) => tags.includes(tag)).length
    for (let course = 0; course < 6; course++) expect(count(`course:c${course}`)).toBeLessThanOrEqual(4)
    for (let student = 0; student < 3; student++) expect(count(`student:s${student}`)).toBe(5)
  })
  test("transfers between two accounts never overdraw one", async () => {
    const store = memoryStore()
    const run = withStore(store)
    await run(move("t0", "bank", "a", 100, ["a"]))
    const results = await run(
      race(Array.from({ length: 20 }, (_, i) => move(`t${i + 1}`, "a", `b${i % 3}`, 30, ["a"])))
    )
    expect(results.filter(({ _tag }) => _tag === "Success")).toHaveLength(3)
  })
  test("of two decisions of which each reads what the other writes, one passes", async () => {
    // two processes: their locks do not know each other
    for (let round = 0; round < 20; round++) {
      const store = memoryStore()
      const cross = (reads: string, to: string) =>
        Aggregate.decideWithin(Accounts, {
          stream: `to ${to}`,
          tags: { account: reads },
          initial: 0,
          evolve: { moved: (moves) => moves + 1 },
          decide: (moves) => (moves > 0 ? [] : [{ type: "moved", from: "bank", to, cents: 1 } as const])
        })
      const both = await Effect.runPromise(
        Effect.all(
          [
            Effect.provideService(cross("x", "y"), ...service({ ...store })),
            Effect.provideService(cross("y", "x"), ...service({ ...store }))
          ],
          { concurrency: "unbounded" }
        )
      )
      expect(both.filter(({ events }) => events.length > 0)).toHaveLength(1)
    }
  })
  test("the store itself refuses a boundary that moved", async () => {
    const store = memoryStore()
    await withStore(store)(open("c", 1))
    const { boundary } = await Effect.runPromise(store.readBoundary("courses", { tags: ["course:c"] }))
    await Effect.runPromise(praise(store))
    const events = [newEvent(Booked.make({ course: "c", student: "s" }), [])]
    const append = { aggregate: "courses", stream: "c", expected: "any", events } as const
    expect(await Effect.runPromise(Effect.flip(store.appendAll([append], "x", boundary)))).toBeInstanceOf(BoundaryMoved)
  })
})
