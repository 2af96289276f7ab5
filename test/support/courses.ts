// Decisions over tags for tests: courses with seats and students with at most five courses; accounts with transfers between them.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Aggregate, Event } from "../../src/index.ts"

export class CourseFull extends Schema.TaggedError<CourseFull>()("CourseFull", { course: Schema.String }) {}
export class TooMany extends Schema.TaggedError<TooMany>()("TooMany", { student: Schema.String }) {}
export class Overdrawn extends Schema.TaggedError<Overdrawn>()("Overdrawn", { cents: Schema.Int }) {}

export const Opened = Event.make("course.opened", { course: Schema.String, seats: Schema.Int })
export const Booked = Event.make("course.booked", { course: Schema.String, student: Schema.String })
export const Praised = Event.make("course.praised", { course: Schema.String })
const nothing = () => null
export const Courses = Aggregate.make({
  name: "courses",
  events: [Opened, Booked, Praised],
  commands: {},
  state: Schema.Null,
  initial: null,
  tags: {
    course: ({ course }) => course,
    student: (event) => (event.type === "course.booked" ? event.student : undefined)
  },
  evolve: { "course.opened": nothing, "course.booked": nothing, "course.praised": nothing },
  decide: {}
})
/** How often the decision of `book` ran. */
export const decisions = { bookings: 0 }
export const open = (course: string, seats: number) =>
  Aggregate.decideWithin(Courses, {
    stream: course,
    tags: { course },
    initial: 0,
    evolve: { "course.opened": (count) => count + 1 },
    decide: (count) => (count === 0 ? Opened.make({ course, seats }) : [])
  })
export const book = (course: string, student: string, options?: { readonly commandId: string }) =>
  Aggregate.decideWithin(
    Courses,
    {
      stream: course,
      tags: { course, student },
      initial: { seats: 0, courses: 0 },
      evolve: {
        "course.opened": (state, event) =>
          event.course === course ? { ...state, seats: state.seats + event.seats } : state,
        "course.booked": (state, event) => ({
          seats: state.seats - (event.course === course ? 1 : 0),
          courses: state.courses + (event.student === student ? 1 : 0)
        })
      },
      command: { type: "book", course, student },
      decide: ({ courses, seats }) => {
        decisions.bookings++
        if (seats <= 0) return new CourseFull({ course })
        return courses >= 5 ? new TooMany({ student }) : Booked.make({ course, student })
      }
    },
    options
  )

export const Moved = Event.make("moved", { from: Schema.String, to: Schema.String, cents: Schema.Int })
export const Accounts = Aggregate.make({
  name: "accounts",
  events: [Moved],
  commands: {},
  state: Schema.Null,
  initial: null,
  tags: { account: ({ from, to }) => [from, to] },
  evolve: { moved: nothing },
  decide: {}
})
/** The cents of an account. "bank" has as many as it needs. */
export const balance = (account: string) => (cents: number, event: typeof Moved.Event) =>
  cents + (event.to === account ? event.cents : 0) - (event.from === account ? event.cents : 0)
export const move = (
  stream: string,
  from: string,
  to: string,
  amount: number,
  reads: ReadonlyArray<string> = [from, to]
) =>
  Aggregate.decideWithin(Accounts, {
    stream,
    tags: { account: reads },
    initial: 0,
    evolve: { moved: (cents, event) => reads.reduce((sum, account) => balance(account)(sum, event), cents) },
    decide: (cents) =>
      from !== "bank" && cents < amount ? new Overdrawn({ cents }) : Moved.make({ from, to, cents: amount })
  })
/** Runs effects at the same time; their results, in order. */
export const race = <A, E, R>(effects: ReadonlyArray<Effect.Effect<A, E, R>>) =>
  Effect.all(effects.map(Effect.result), { concurrency: "unbounded" })
