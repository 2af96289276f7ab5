// The reference application with its projection `signals` alone, for tests and measurements that are about events and not about cases.
import reference from "../../millrace.config.ts"

/** Without the aggregate, its policies and its read model. */
export default {
  ...reference,
  aggregates: [],
  views: [],
  projections: reference.projections.filter(({ projection }) => projection.name === "signals")
}
