// An alert's case: opened, acknowledged, escalated, resolved. A decider: three pure functions over events and commands.
import { Schema } from "effect"
import { Aggregate, Column, Event, Projection, ReadModel } from "../src/index.ts"

// What happened
const of = { case_id: Schema.String, at: Schema.Int }
export const CaseOpened = Event.make("case.opened", { ...of, entity_id: Schema.String, score: Schema.Finite })
export const CaseAcknowledged = Event.make("case.acknowledged", { ...of, by: Schema.String })
export const CaseEscalated = Event.make("case.escalated", { ...of, level: Schema.Int })
export const CaseResolved = Event.make("case.resolved", {
  ...of,
  resolution: Schema.Literals(["fixed", "false alarm"])
})

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

export const AlertCase = Aggregate.make({
  name: "alert-case",
  id: "case_id",
  eventTime: "at",
  events: [CaseOpened, CaseAcknowledged, CaseEscalated, CaseResolved],
  commands: {
    open: { ...of, entity_id: Schema.String, score: Schema.Finite },
    acknowledge: { ...of, by: Schema.String },
    escalate: of,
    resolve: { ...of, resolution: Schema.Literals(["fixed", "false alarm"]) }
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
    "case.escalated": (state, { level }) => (state.status === "open" ? { ...state, level } : state),
    "case.resolved": (_, { resolution }) => ({ status: "resolved", resolution })
  },
  decide: {
    open: (state, { type: _, ...data }) => (state.status === "none" ? CaseOpened.make(data) : new CaseExists(data)),
    acknowledge: (state, { at, by, case_id }) => {
      if (state.status === "none") return new CaseUnknown({ case_id })
      if (state.status === "resolved") return new CaseClosed({ case_id, resolution: state.resolution })
      if (state.by === by) return [] // said twice: nothing new
      return state.by === null ? CaseAcknowledged.make({ case_id, at, by }) : new CaseTaken({ case_id, by: state.by })
    },
    escalate: (state, { at, case_id }) => {
      if (state.status === "none") return new CaseUnknown({ case_id })
      if (state.status === "resolved") return new CaseClosed({ case_id, resolution: state.resolution })
      return CaseEscalated.make({ case_id, at, level: state.level + 1 })
    },
    resolve: (state, { at, case_id, resolution }) => {
      if (state.status === "none") return new CaseUnknown({ case_id })
      if (state.status === "resolved") return new CaseClosed({ case_id, resolution: state.resolution })
      return CaseResolved.make({ case_id, at, resolution })
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
    "case.escalated": ({ at, case_id, level }, out) =>
      out.update(cases, { case_id, status: "escalated", level, changed_at: at }),
    "case.resolved": ({ at, case_id }, out) => out.update(cases, { case_id, status: "resolved", changed_at: at })
  }
})
