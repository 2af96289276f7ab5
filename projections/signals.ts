// The reference application: events about entities are scored with what is known of the entity, become alerts, and are counted.
import { Schema } from "effect"
import { Agg, Column, Event, Projection, ReadModel, Topic, Window } from "../src/index.ts"

// What happens
const raw = {
  event_id: Schema.String,
  entity_id: Schema.String,
  amount: Schema.Finite,
  occurred_at: Schema.Int,
  tenant: Schema.String
}
const flight = { flight: Schema.String, origin: Schema.String, dest: Schema.String }

export const FlightDeparted = Event.make("flight.departed", {
  ...raw,
  attributes: Schema.optionalKey(Schema.Struct({ ...flight, delay: Schema.Finite }))
})
export const FlightCancelled = Event.make("flight.cancelled", {
  ...raw,
  attributes: Schema.optionalKey(Schema.Struct({ ...flight, delay: Schema.Null }))
})
export const Payment = Event.make("payment", raw)
  .upcast({ ...raw, currency: Schema.String }, (v1) => ({ ...v1, currency: "USD" }))
  .upcast({ ...raw, currency: Schema.String, fee: Schema.Finite }, (v2) => ({
    ...v2,
    fee: v2.currency === "USD" ? 0 : 1
  }))
export const Transfer = Event.make("transfer", raw)
export const Withdrawal = Event.make("withdrawal", raw)
export const Refund = Event.make("refund", raw)

export const rawEvents = Topic.events("events.raw.v1", {
  events: [FlightDeparted, FlightCancelled, Payment, Transfer, Withdrawal, Refund],
  id: "event_id",
  key: "entity_id",
  eventTime: "occurred_at",
  tenant: "tenant",
  partitions: 12
})

// What is known
export const features = Topic.compacted("features.entity.v1", {
  value: {
    entity_id: Schema.String,
    risk_weight: Schema.Finite,
    threshold: Schema.Finite,
    segment: Schema.String,
    attributes: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown))
  },
  key: "entity_id",
  partitions: 12
})

// What is published
export const scores = Topic.records("signals.scores.v1", {
  value: { event_id: Schema.String, entity_id: Schema.String, score: Schema.Finite, occurred_at: Schema.Int },
  id: "event_id",
  key: "entity_id"
})
const alert = {
  alert_id: Schema.String,
  entity_id: Schema.String,
  score: Schema.Finite,
  threshold: Schema.Finite,
  segment: Schema.String
}
export const alertsTopic = Topic.records("alerts.v1", {
  value: { ...alert, occurred_at: Schema.Int },
  id: "alert_id",
  key: "entity_id"
})

// What SQL sees
export const alerts = ReadModel.table("alerts", {
  columns: { ...alert, occurred_at: Column.timestamptz, tenant: Schema.String, trace_id: Schema.NullOr(Schema.String) },
  primaryKey: ["alert_id"]
})
export const activity = Window.tumbling("entity_activity", {
  size: ["1 minute", "5 minutes", "1 hour"],
  grace: "5 minutes",
  key: { entity_id: Schema.String },
  aggregate: { events: Agg.count, alerts: Agg.count, score_sum: Agg.sum, score_max: Agg.max },
  emit: "onUpdate",
  publish: "alerts.analytics.v1"
})

// From the one to the other
export const signals = Projection.make({
  name: "signals",
  version: 1,
  source: rawEvents,
  dedupe: { within: "1 hour" },
  enrich: { features }, // by the event's key
  writes: [alerts, activity, scores, alertsTopic],
  handle: (event, out, { features, meta }) => {
    const { amount, entity_id, event_id, occurred_at, tenant } = event
    const { risk_weight, segment, threshold } = features ?? { risk_weight: 1, threshold: 900, segment: "unknown" }
    const score = amount * risk_weight
    const isAlert = score > threshold

    out.publish(scores, { event_id, entity_id, score, occurred_at })
    out.add(activity, { entity_id, events: 1, alerts: isAlert, score_sum: score, score_max: score })
    if (isAlert) {
      const alert = { alert_id: event_id, entity_id, score, threshold, segment, occurred_at }
      out.upsert(alerts, { ...alert, tenant, trace_id: meta.traceId ?? null })
      out.publish(alertsTopic, alert)
    }
  }
})
