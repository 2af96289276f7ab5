// An alert's case: an aggregate, the policies that open a case for each alert and escalate it, and the read model of cases.
import { Schema } from "effect"
import { Aggregate, Column, Event, Policy, Projection, ReadModel } from "../src/index.ts"
import { alertsTopic } from "../projections/signals.ts"

// What happened
const of = { case_id: Schema.String, at: Schema.Int }
export const CaseOpened = Event.make("case.opened", { ...of, entity_id: Schema.String, score: Schema.Finite })
export const CaseAcknowledged = Event.make("case.acknowledged", { ...of, by: Schema.String })
export const CaseAssigned = Event.make("case.assigned", { ...of, to: Schema.String })
export const CaseEscalated = Event.make("case.escalated", { ...of, level: Schema.Int })
export const CaseResolved = Event.make("case.resolved", {
  ...of,
  resolution: Schema.Literals(["fixed", "false alarm"])
})
export const CaseReopened = Event.make("case.reopened", { ...of, by: Schema.String })

// Why not
export class CaseExists extends Schema.TaggedError<CaseExists>()("CaseExists", { case_id: Schema.String }) {}
export class CaseUnknown extends Schema.TaggedError<CaseUnknown>()("CaseUnknown", { case_id: Schema.String }) {}
export class CaseClosed extends Schema.TaggedError<CaseClosed>()("CaseClosed", {
  case_id: Schema.String,
  resolution: Schema.String
}) {}
export class CaseTaken extends Schema.TaggedError<CaseTaken>()("CaseTaken", {
  case_id: Schema.String,
  by: Schema.String
}) {}
export class CaseNotResolved extends Schema.TaggedError<CaseNotResolved>()("CaseNotResolved", {
  case_id: Schema.String
}) {}
/** Everything that a command can be rejected with. */
export type CaseRejection = CaseExists | CaseUnknown | CaseClosed | CaseTaken | CaseNotResolved

export const AlertCase = Aggregate.make({
  name: "alert-case",
  id: "case_id",
  eventTime: "at",
  events: [CaseOpened, CaseAcknowledged, CaseAssigned, CaseEscalated, CaseResolved, CaseReopened],
  commands: {
    open: { ...of, entity_id: Schema.String, score: Schema.Finite },
    acknowledge: { ...of, by: Schema.String },
    assign: { ...of, to: Schema.String },
    escalate: of,
    // sent by a timer: escalates the case if nobody has taken it
    expire: of,
    resolve: { ...of, resolution: Schema.Literals(["fixed", "false alarm"]) },
    reopen: { ...of, by: Schema.String }
  },
  state: Schema.Union([
    Schema.Struct({ status: Schema.Literal("none") }),
    Schema.Struct({ status: Schema.Literal("open"), level: Schema.Int, by: Schema.NullOr(Schema.String) }),
    Schema.Struct({ status: Schema.Literal("resolved"), resolution: Schema.String })
  ]),
  initial: { status: "none" },
  evolve: {
    "case.opened": () => ({ status: "open", level: 0, by: null }),
    "case.acknowledged": (state, { by }) => (state.status === "open" ? { ...state, by } : state),
    "case.assigned": (state, { to }) => (state.status === "open" ? { ...state, by: to } : state),
    "case.escalated": (state, { level }) => (state.status === "open" ? { ...state, level } : state),
    "case.resolved": (_, { resolution }) => ({ status: "resolved", resolution }),
    "case.reopened": () => ({ status: "open", level: 0, by: null })
  },
  decide: {
    open: (state, { type: _, ...data }) => (state.status === "none" ? CaseOpened.make(data) : new CaseExists(data)),
    acknowledge: (state, { at, by, case_id }) => {
      if (state.status === "none") return new CaseUnknown({ case_id })
      if (state.status === "resolved") return new CaseClosed({ case_id, resolution: state.resolution })
      if (state.by === by) return [] // said twice: nothing new
      return state.by === null ? CaseAcknowledged.make({ case_id, at, by }) : new CaseTaken({ case_id, by: state.by })
    },
    assign: (state, { at, case_id, to }) => {
      if (state.status === "none") return new CaseUnknown({ case_id })
      if (state.status === "resolved") return new CaseClosed({ case_id, resolution: state.resolution })
      return state.by === to ? [] : CaseAssigned.make({ case_id, at, to })
    },
    escalate: (state, { at, case_id }) => {
      if (state.status === "none") return new CaseUnknown({ case_id })
      if (state.status === "resolved") return new CaseClosed({ case_id, resolution: state.resolution })
      return CaseEscalated.make({ case_id, at, level: state.level + 1 })
    },
    // the acknowledgement that would cancel the timer may be newer than what the policy has processed
    expire: (state, { at, case_id }) =>
      state.status === "open" && state.by === null ? CaseEscalated.make({ case_id, at, level: state.level + 1 }) : [],
    resolve: (state, { at, case_id, resolution }) => {
      if (state.status === "none") return new CaseUnknown({ case_id })
      if (state.status === "resolved") return new CaseClosed({ case_id, resolution: state.resolution })
      return CaseResolved.make({ case_id, at, resolution })
    },
    reopen: (state, { at, by, case_id }) => {
      if (state.status === "none") return new CaseUnknown({ case_id })
      return state.status === "open" ? new CaseNotResolved({ case_id }) : CaseReopened.make({ case_id, at, by })
    }
  }
})

// What SQL sees: in the transaction that appends (inline), behind it (async), or folded when asked (live)
export const cases = ReadModel.table("cases", {
  columns: {
    case_id: Schema.String,
    entity_id: Schema.String,
    status: Schema.Literals(["open", "acknowledged", "escalated", "resolved"]),
    level: Schema.Int,
    handled_by: Schema.NullOr(Schema.String),
    changed_at: Column.timestamptz
  },
  primaryKey: ["case_id"]
})
export const caseStatus = Projection.make({
  name: "case_status",
  version: 1,
  source: AlertCase,
  writes: [cases],
  handle: {
    "case.opened": ({ at, case_id, entity_id }, out) =>
      out.upsert(cases, { case_id, entity_id, status: "open", level: 0, handled_by: null, changed_at: at }),
    "case.acknowledged": ({ at, by, case_id }, out) =>
      out.update(cases, { case_id, status: "acknowledged", handled_by: by, changed_at: at }),
    "case.assigned": ({ at, case_id, to }, out) =>
      out.update(cases, { case_id, status: "acknowledged", handled_by: to, changed_at: at }),
    "case.escalated": ({ at, case_id, level }, out) =>
      out.update(cases, { case_id, status: "escalated", level, changed_at: at }),
    "case.resolved": ({ at, case_id }, out) => out.update(cases, { case_id, status: "resolved", changed_at: at }),
    "case.reopened": ({ at, case_id }, out) =>
      out.update(cases, { case_id, status: "open", level: 0, handled_by: null, changed_at: at })
  }
})

/** The alerts with what became of each: `open`, `acknowledged`, `escalated` or `resolved`; null until its case is opened. */
export const alertStatus = ReadModel.view("alert_status", {
  query: `select a.alert_id, a.entity_id, a.score, a.threshold, a.segment, a.occurred_at, a.tenant,
    c.status, c.level, c.handled_by, c.changed_at
    from alerts a left join cases c on c.case_id = a.alert_id`
})

// What happens by itself: each alert opens a case, and a case that nobody acknowledges escalates
export const openCases = Policy.make({
  name: "open_cases",
  version: 1,
  source: alertsTopic,
  writes: [AlertCase],
  handle: ({ alert_id, entity_id, occurred_at, score }, out) =>
    out.send(AlertCase, alert_id, { type: "open", at: occurred_at, entity_id, score })
})
/** How long a case may wait for a person, in milliseconds: 15 minutes, or what the environment says (the demo has less patience). */
const patienceMs = Number(process.env["MILLRACE_ESCALATE_AFTER_MS"] ?? 15 * 60_000)
/** The command that escalates a case at the end of its patience. The events of flights are of 2013, and people wait today. */
const escalating = (case_id: string, at: number) =>
  ({
    after: patienceMs,
    send: [AlertCase, case_id, { type: "expire", at: at + patienceMs }]
  }) as const
export const escalation = Policy.make({
  name: "escalation",
  version: 1,
  source: AlertCase,
  writes: [AlertCase],
  handle: {
    "case.opened": ({ at, case_id }, out) => out.timer("escalate", escalating(case_id, at)),
    "case.reopened": ({ at, case_id }, out) => out.timer("escalate", escalating(case_id, at)),
    "case.acknowledged": (_, out) => out.cancel("escalate"),
    "case.assigned": (_, out) => out.cancel("escalate"),
    "case.resolved": (_, out) => out.cancel("escalate")
  }
})
