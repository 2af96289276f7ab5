// Types that must be inferred, and mistakes that must not compile. Importing the file runs its given/when/then examples.
import { Context, Effect, Layer, Schema } from "effect"
import { AggregateTest, MemoryEventStore, ProjectionTest } from "../../src/testing/testing.ts"
import {
  Agg,
  Aggregate,
  Application,
  Column,
  Event,
  EventStore,
  type Executed,
  type EventType,
  type ExecuteError,
  Projection,
  ReadModel,
  type Rows,
  Topic,
  Window
} from "../../src/index.ts"
import {
  AlertCase,
  CaseAcknowledged,
  CaseOpened,
  type CaseRejection,
  cases,
  caseStatus
} from "../../aggregates/alert-case.ts"
import {
  activity,
  alerts,
  alertsTopic,
  features,
  FlightDeparted,
  Payment,
  rawEvents,
  scores,
  signals
} from "../../projections/signals.ts"

type Is<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const is = <T extends true>(): T | void => {}

class GeoDown extends Schema.TaggedError<GeoDown>()("GeoDown", {}) {}
class Geo extends Context.Service<Geo, { country(ip: string): Effect.Effect<string, GeoDown> }>()("Geo") {
  static readonly layerTest = Layer.succeed(Geo, { country: () => Effect.succeed("NO") })
}
class BankDown extends Schema.TaggedError<BankDown>()("BankDown", {}) {}
class Bank extends Context.Service<Bank, { fee(amount: number): Effect.Effect<number, BankDown> }>()("Bank") {}

// ——— inferred: the newest version of an event
is<
  Is<
    typeof Payment extends EventType<"payment", infer D> ? D : never,
    {
      readonly event_id: string
      readonly entity_id: string
      readonly amount: number
      readonly occurred_at: number
      readonly tenant: string
      readonly currency: string
      readonly fee: number
    }
  >
>()
// ——— inferred: a window's row, its labels from the sizes
is<
  Is<
    Rows<typeof activity>["entity_activity"][number],
    {
      readonly window_size: "1m" | "5m" | "1h"
      readonly window_start: number
      readonly entity_id: string
      readonly events: number
      readonly alerts: number
      readonly score_sum: number
      readonly score_max: number
    }
  >
>()
// ——— inferred: an aggregate's rejections, through `execute`
const acknowledged = Aggregate.execute(AlertCase, "c1", { type: "acknowledge", case_id: "c1", at: 1, by: "ann" })
is<Is<Effect.Error<typeof acknowledged>, CaseRejection | ExecuteError>>()
is<Is<Effect.Services<typeof acknowledged>, EventStore>>()
is<Is<Effect.Success<typeof acknowledged>, Executed<Aggregate.Event<typeof AlertCase>>>>()
// ——— the id of the stream may be left out of its commands
void Aggregate.execute(AlertCase, "c1", { type: "acknowledge", at: 1, by: "ann" })

// ——— inferred: the topic of a window's rows, which another projection can read; a topic of its own must fit
is<
  Is<
    typeof activity.topic extends Topic<infer N, infer V> ? [N, V] : never,
    ["alerts.analytics.v1", Rows<typeof activity>["entity_activity"][number]]
  >
>()
const hourly = Topic.records("hourly", {
  value: { entity_id: Schema.String, window_start: Schema.Int, n: Schema.Int },
  key: "entity_id"
})
const hours = Window.tumbling("hours", {
  size: "1 hour",
  key: { entity_id: Schema.String },
  aggregate: { n: Agg.count },
  publish: hourly
})
Projection.make({
  name: "busy",
  version: 1,
  source: activity.topic,
  writes: [hours],
  handle: ({ entity_id }, out) => out.add(hours, { entity_id, n: 1 })
})

// ——— inferred: errors and services of every branch and of every handler; several sources; a lookup by another value
const visits = Topic.records("visits", {
  value: { user: Schema.String, ip: Schema.String, at: Schema.Int },
  key: "user",
  eventTime: "at"
})
const countries = Topic.compacted("countries", { value: { code: Schema.String, risk: Schema.Finite }, key: "code" })
const seen = ReadModel.table("seen", {
  columns: { user: Schema.String, country: Schema.String, at: Column.timestamptz, fee: Schema.NullOr(Schema.Finite) },
  primaryKey: ["user", "country"]
})
const effectful = Projection.make({
  name: "seen",
  version: 1,
  source: visits,
  writes: [seen],
  handle: (visit, out) =>
    Effect.gen(function* () {
      const country = yield* (yield* Geo).country(visit.ip)
      out.upsert(seen, { user: visit.user, country, at: visit.at, fee: null })
    })
})
is<Is<[Projection.Error<typeof effectful>, Projection.Services<typeof effectful>], [GeoDown, Geo]>>()
const branches = Projection.make({
  name: "branches",
  version: 1,
  source: [rawEvents, AlertCase],
  enrich: { features: { topic: features, by: (event) => ("entity_id" in event ? event.entity_id : undefined) } },
  writes: [seen],
  handle: {
    payment: (event, out, { features }) =>
      // one handler waits …
      Effect.gen(function* () {
        const fee = yield* (yield* Bank).fee(event.amount * (features?.risk_weight ?? 1))
        out.upsert(seen, { user: event.tenant, country: event.currency, at: event.occurred_at, fee })
      }),
    "flight.departed": Effect.fnUntraced(function* (event, out) {
      out.delete(seen, { user: event.tenant, country: yield* (yield* Geo).country(event.attributes?.origin ?? "") })
    }),
    "case.opened": (event, out, { meta }) =>
      // … another does not
      out.modify(seen, { user: event.entity_id, country: "?" }, (row) => row && { ...row, at: meta.eventTime })
  }
})
is<Is<[Projection.Error<typeof branches>, Projection.Services<typeof branches>], [GeoDown | BankDown, Geo | Bank]>>()
is<Is<[Projection.Error<typeof signals>, Projection.Services<typeof signals>], [never, never]>>()

// ——— the other windows
const entity = { key: { entity_id: Schema.String }, aggregate: { n: Agg.count, low: Agg.min } }
const sliding = Window.hopping("sliding", { ...entity, size: "10 minutes", every: "1 minute" })
const sessions = Window.session("sessions", { ...entity, gap: "30 minutes", emit: "onWindowClose" })
const days = Window.calendar("days", { ...entity, unit: ["day", "month"], timeZone: "America/New_York" })
const totals = Window.global("totals", {
  key: { tenant: Schema.String, entity_id: Schema.String },
  aggregate: {
    origins: Agg.fold({
      input: Schema.String,
      state: Schema.Array(Schema.String),
      initial: [],
      add: (all, origin) => (all.includes(origin) ? all : [...all, origin])
    })
  }
})
is<Is<Rows<typeof sliding>["sliding"][number]["window_size"], "10m">>()
is<
  Is<
    Rows<typeof sessions>["sessions"][number],
    {
      readonly entity_id: string
      readonly window_start: number
      readonly window_end: number
      readonly n: number
      readonly low: number
    }
  >
>()
is<Is<Rows<typeof days>["days"][number]["window_size"], "day" | "month">>()
is<
  Is<
    Rows<typeof totals>["totals"][number],
    { readonly tenant: string; readonly entity_id: string; readonly origins: ReadonlyArray<string> }
  >
>()
const counted = Projection.make({
  name: "counted",
  version: 1,
  source: rawEvents,
  writes: [sliding, days, totals],
  handle: ({ amount, entity_id, tenant, ...event }, out) => {
    out.add(sliding, { entity_id, n: 1, low: amount })
    out.add(days, { entity_id, n: 1, low: amount })
    if (event.type === "flight.departed")
      out.add(totals, { tenant, entity_id, origins: event.attributes?.origin ?? "?" })
  }
})
// declared and typed, though nothing runs sessions yet
Projection.make({
  name: "sessioned",
  version: 1,
  source: rawEvents,
  writes: [sessions],
  handle: ({ amount, entity_id }, out) => out.add(sessions, { entity_id, n: 1, low: amount })
})

// ——— given, when, then
const noon = Date.UTC(2026, 0, 1, 12)
const departed = (event_id: string, amount: number, minute: number) =>
  FlightDeparted.make({ event_id, entity_id: "N1", amount, occurred_at: noon + minute * 60_000, tenant: "ua" })
const spec = ProjectionTest.make(signals)
  .given(features, [{ entity_id: "N1", risk_weight: 2, threshold: 100, segment: "Boeing" }])
  .when([departed("a", 60, 0), departed("a", 60, 0), departed("b", 40, 1), departed("late", 1, -10)])
spec.then({
  alerts: [{ alert_id: "a", score: 120, threshold: 100, segment: "Boeing" }],
  entity_activity: [
    { window_size: "1m", window_start: noon, events: 1, alerts: 1 },
    { window_size: "5m", window_start: noon, events: 2, score_sum: 200, score_max: 120 },
    { window_size: "1h", window_start: noon, events: 2 },
    { window_size: "1m", window_start: noon + 60_000, events: 1, alerts: 0 },
    { window_size: "1h", window_start: noon - 3_600_000, events: 1, alerts: 0 }
  ],
  published: {
    "alerts.v1": [{ alert_id: "a", score: 120 }],
    "signals.scores.v1": [{ score: 120 }, { score: 80 }, { score: 2 }]
  },
  late: [{ window_size: "1m" }, { window_size: "5m" }]
})
ProjectionTest.make(counted)
  .when([departed("a", 1, 0), departed("b", 2, 20), departed("c", 3, 60)])
  .idle("2 hours")
  .then({
    days: [
      { window_size: "day", n: 3 },
      { window_size: "month", n: 3 }
    ],
    totals: [{ tenant: "ua", entity_id: "N1", origins: ["?"] }]
  })
ProjectionTest.make(effectful, Geo.layerTest)
  .when([{ user: "u", ip: "::1", at: noon }])
  .then({ seen: [{ user: "u", country: "NO" }] })
const opened = CaseOpened.make({ case_id: "c1", at: 1, entity_id: "N1", score: 120 })
AggregateTest.make(AlertCase)
  .given([opened])
  .when({ type: "acknowledge", case_id: "c1", at: 2, by: "ann" })
  .then([{ type: "case.acknowledged", case_id: "c1", at: 2, by: "ann" }])
AggregateTest.make(AlertCase)
  .given([opened, CaseAcknowledged.make({ case_id: "c1", at: 2, by: "ann" })])
  .when({ type: "acknowledge", case_id: "c1", at: 3, by: "bob" })
  .thenRejected("CaseTaken", { by: "ann" })
const rows = Projection.live(caseStatus, [opened])
is<Is<(typeof rows.cases)[number]["status"], "open" | "acknowledged" | "escalated" | "resolved">>()
if (rows.cases[0]?.level !== 0) throw new Error("live")
if (
  rawEvents.decode({ type: "payment", event_id: "p", entity_id: "e", amount: 1, occurred_at: 1, tenant: "t" }).type !==
  "payment"
)
  throw new Error("upcast")
const failed = await Effect.runPromise(Effect.flip(acknowledged.pipe(Effect.provide(MemoryEventStore.layer))))
if (failed._tag !== "CaseUnknown") throw new Error("execute")

// ——— must not compile; never run
const rawScores = Topic.records("raw.scores", {
  value: { entity_id: Schema.String, score: Schema.Finite },
  key: "entity_id"
})
const base = { name: "x", version: 1, source: rawEvents }
export const mistakes = () => {
  Projection.make({
    ...base,
    writes: [alerts],
    handle: (event) => {
      // @ts-expect-error unknown event type, in a comparison
      if (event.type === "flight.departd") return
    }
  })
  Projection.make({
    ...base,
    writes: [alerts],
    handle: {
      payment: () => {},
      // @ts-expect-error unknown event type, as a handler's name, beside a known one
      "flight.departd": () => {}
    }
  })
  Projection.make({
    ...base,
    writes: [alerts],
    handle: {
      payment: (event) => {
        // @ts-expect-error a field of another event type
        event.attributes
      }
    }
  })
  const row = {
    alert_id: "a",
    entity_id: "e",
    score: 1,
    threshold: 1,
    segment: "s",
    occurred_at: 1,
    tenant: "t",
    trace_id: null
  }
  Projection.make({
    ...base,
    writes: [alerts, activity, scores],
    handle: (event, out) => {
      out.upsert(alerts, {
        alert_id: "a",
        entity_id: "e",
        // @ts-expect-error wrong column name
        scor: 1,
        threshold: 1,
        segment: "s",
        occurred_at: 1,
        tenant: "t",
        trace_id: null
      })
      // @ts-expect-error wrong column type
      out.upsert(alerts, { ...row, score: "high" })
      // @ts-expect-error missing columns
      out.upsert(alerts, { alert_id: "a" })
      // @ts-expect-error an update must name the key
      out.update(alerts, { segment: "s" })
      // @ts-expect-error wrong key
      out.delete(alerts, { id: "a" })
      // @ts-expect-error publishing a wrong shape
      out.publish(scores, { event_id: event.event_id, entity_id: event.entity_id, score: "1", occurred_at: 1 })
      // @ts-expect-error wrong aggregate name
      out.add(activity, { entity_id: "e", events: 1, alrts: 1, score_sum: 1, score_max: 1 })
      // @ts-expect-error missing aggregate
      out.add(activity, { entity_id: "e", events: 1, score_sum: 1, score_max: 1 })
      // @ts-expect-error a table that the projection does not write
      out.upsert(seen, { user: "u", country: "c", at: 1, fee: null })
      // @ts-expect-error a topic that the projection does not write
      out.publish(alertsTopic, row)
      // @ts-expect-error a table is not published
      out.publish(alerts, row)
      // @ts-expect-error a window's rows are aggregated, not upserted
      out.upsert(activity, {})
    }
  })
  // @ts-expect-error a promise is not an Effect
  Projection.make({ ...base, writes: [alerts], handle: async () => {} })
  // @ts-expect-error an Effect in an Effect: a missing `yield*`
  Projection.make({ ...base, writes: [alerts], handle: () => Effect.succeed(Effect.void) })
  // @ts-expect-error a lookup needs a compacted topic
  Projection.make({ ...base, enrich: { scores }, writes: [alerts], handle: () => {} })
  Projection.make({
    ...base,
    // @ts-expect-error a lookup by a field that no event has
    enrich: { features: { topic: features, by: (event) => event.tail } },
    writes: [alerts],
    handle: () => {}
  })
  Projection.make({
    ...base,
    enrich: { features },
    writes: [alerts],
    // @ts-expect-error a context that was not asked for
    handle: (_, out, { feature }) => {
      void feature
    }
  })
  // @ts-expect-error a misspelt option
  Projection.make({ ...base, writes: [alerts], dedup: { within: "1 hour" }, handle: () => {} })
  // @ts-expect-error not a duration
  Projection.make({ ...base, writes: [alerts], dedupe: { within: "1 hr" }, handle: () => {} })
  // @ts-expect-error missing service, under test
  ProjectionTest.make(effectful).when([])
  // @ts-expect-error missing service, in the application
  Application.make({ name: "x", projections: [Projection.async(signals), Projection.async(effectful)] })
  // @ts-expect-error a service that only one of two handlers has
  Application.make({ name: "x", projections: [Projection.async(branches)], services: Geo.layerTest })
  // @ts-expect-error inline needs an aggregate's transaction; these events come from a topic
  Projection.inline(signals)
  // @ts-expect-error live needs a handler without services
  Projection.live(effectful, [])
  // @ts-expect-error rows under test have the table's columns
  spec.then({ alerts: [{ alert: "a" }] })
  // @ts-expect-error a topic that is not published to
  spec.then({ published: { "alerts.v2": [] } })
  // @ts-expect-error an event that the source does not have
  ProjectionTest.make(signals).when([{ type: "flight.landed" }])
  // @ts-expect-error primary key of a column that is not there
  ReadModel.table("t", { columns: { a: Schema.String }, primaryKey: ["b"] })
  // @ts-expect-error the key of a topic is a string field
  Topic.records("t", { value: { a: Schema.Int }, key: "a" })
  // @ts-expect-error a window size needs a unit
  Window.tumbling("w", { ...entity, size: "1 fortnight" })
  // @ts-expect-error the row lacks what the topic's values have
  Window.tumbling("w", { ...entity, size: "1 minute", publish: rawScores })
  // @ts-expect-error an upcaster that does not make the next version
  Event.make("e", { a: Schema.String }).upcast({ a: Schema.String, b: Schema.Int }, (v1) => v1)
  // @ts-expect-error an upcaster sees the previous version only
  Payment.upcast({ total: Schema.Finite }, (v3) => ({ total: v3.amount + v3.tax }))
  // @ts-expect-error an event with a missing field
  CaseOpened.make({ case_id: "c" })
  // @ts-expect-error unknown command
  Aggregate.execute(AlertCase, "c1", { type: "archive", case_id: "c1", at: 1 })
  // @ts-expect-error a command with a wrong field
  Aggregate.execute(AlertCase, "c1", { type: "resolve", case_id: "c1", at: 1, resolution: "dunno" })
  // @ts-expect-error a rejection that the aggregate never makes
  AggregateTest.make(AlertCase).when({ type: "escalate", case_id: "c", at: 1 }).thenRejected("CaseLost")
  const counter = {
    name: "counter",
    events: [Event.make("added", { n: Schema.Int })],
    commands: { add: { n: Schema.Int } },
    state: Schema.Struct({ n: Schema.Int }),
    initial: { n: 0 }
  }
  Aggregate.make({
    ...counter,
    evolve: { added: (state, { n }) => ({ n: state.n + n }) },
    // @ts-expect-error a decision that is no event of the aggregate
    decide: { add: (_, { n }) => ({ type: "subtracted", n }) }
  })
  Aggregate.make({
    ...counter,
    // @ts-expect-error an event that is not evolved
    evolve: {},
    decide: { add: (_, { n }) => ({ type: "added", n }) }
  })
  Aggregate.make({
    ...counter,
    evolve: { added: (state, { n }) => ({ n: state.n + n }) },
    decide: {
      add: (_, { n }) => ({ type: "added", n }),
      // @ts-expect-error a decision about an unknown command
      remove: () => []
    }
  })
  const keyed = {
    ...counter,
    events: [Event.make("added", { id: Schema.String, n: Schema.Int })],
    commands: { add: { id: Schema.String, n: Schema.Int } },
    evolve: { added: (state: { readonly n: number }) => state },
    decide: { add: () => [] }
  } as const
  Aggregate.make({ ...keyed, id: "id", eventTime: "n", tags: { id: (event) => event.id }, subject: () => undefined })
  // @ts-expect-error an id that is no text of every event and command
  Aggregate.make({ ...keyed, id: "n" })
  // @ts-expect-error an event time that is no number
  Aggregate.make({ ...keyed, eventTime: "id" })
  // @ts-expect-error a tag that is no text
  Aggregate.make({ ...keyed, tags: { n: (event) => event.n } })
  // @ts-expect-error a command that is not decided
  Aggregate.make({ ...counter, evolve: { added: (state, { n }) => ({ n: state.n + n }) }, decide: {} })
}
void cases
