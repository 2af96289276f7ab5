// Names that examples in docstrings use without declaring them.
import { Effect, Schema } from "effect"
import { Aggregate, Event, Projection, ReadModel, Subscription, Topic, Window, Agg } from "../../src/index.ts"
import { AlertCase as Case, caseStatus as status } from "../../aggregates/alert-case.ts"
import { signals as scoring } from "../../projections/signals.ts"

export { test } from "vitest"

const flight = { flight: Schema.String, at: Schema.Int }
export const Departed = Event.make("flight.departed", flight)
export const Landed = Event.make("flight.landed", flight)
export const Flights = Topic.events("flights.v1", { events: [Departed, Landed], key: "flight", eventTime: "at" })
export const Planes = Topic.compacted("planes.v1", { value: { plane: Schema.String, seats: Schema.Int }, key: "plane" })
export const Departures = ReadModel.table("departures", { columns: flight, primaryKey: ["flight"] })
export const Activity = Window.global("activity", {
  key: { flight: Schema.String },
  aggregate: { departures: Agg.count }
})
export const departures = Projection.make({
  name: "departures",
  version: 1,
  source: Flights,
  writes: [Departures],
  handle: { "flight.departed": ({ at, flight }, out) => out.upsert(Departures, { flight, at }) }
})

export class AlreadyDeparted extends Schema.TaggedError<AlreadyDeparted>()("AlreadyDeparted", {
  flight: Schema.String
}) {}
export const Flight = Aggregate.make({
  name: "flight",
  id: "flight",
  events: [Departed],
  commands: { depart: flight },
  state: Schema.Struct({ hasDeparted: Schema.Boolean }),
  initial: { hasDeparted: false },
  evolve: { "flight.departed": () => ({ hasDeparted: true }) },
  decide: {
    depart: ({ hasDeparted }, { at, flight }) =>
      hasDeparted ? new AlreadyDeparted({ flight }) : Departed.make({ flight, at })
  }
})

export const CourseOpened = Event.make("course.opened", { course: Schema.String, seats: Schema.Int })
export const CourseBooked = Event.make("course.booked", { course: Schema.String, student: Schema.String })
export class CourseFull extends Schema.TaggedError<CourseFull>()("CourseFull", { course: Schema.String }) {}
export class TooManyCourses extends Schema.TaggedError<TooManyCourses>()("TooManyCourses", {
  student: Schema.String
}) {}
export const Courses = Aggregate.make({
  name: "course",
  events: [CourseOpened, CourseBooked],
  commands: {},
  state: Schema.Null,
  initial: null,
  evolve: { "course.opened": () => null, "course.booked": () => null },
  decide: {},
  tags: {
    course: ({ course }) => course,
    student: (event) => (event.type === "course.booked" ? event.student : undefined)
  }
})

export const Registered = Event.make("customer.registered", { customer_id: Schema.String, email: Schema.String })
export const Customer = Aggregate.make({
  name: "customer",
  events: [Registered],
  commands: {},
  state: Schema.Null,
  initial: null,
  evolve: { "customer.registered": () => null },
  decide: {}
})
export const customers = ReadModel.table("customers", {
  columns: { customer_id: Schema.String, email: Schema.String },
  primaryKey: ["customer_id"]
})

export const AlertCase = Case
export const caseStatus = status
export const signals = scoring
export const Alerts = Topic.records("alerts.v1", {
  value: { alert_id: Schema.String, severity: Schema.Literals(["low", "high"]) },
  key: "alert_id"
})
export const mails = Subscription.make({ topic: Alerts, name: "mails", type: "keyShared" })
export const sendMail = (_: Topic.Value<typeof Alerts>): Effect.Effect<void> => Effect.void

const Placed = Event.make("order.placed", { order_id: Schema.String })
const PaymentReceived = Event.make("payment.received", { invoice: Schema.Struct({ order_id: Schema.String }) })
export const Order = Topic.events("orders.v1", { events: [Placed], key: "order_id" })
export const Payment = Topic.events("payments.v1", {
  events: [PaymentReceived],
  key: ({ invoice }) => invoice.order_id
})
