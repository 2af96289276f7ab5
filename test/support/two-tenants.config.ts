// The reference application with two tenants on Pulsar, acme and globex. The relay signs in as millrace-relay.
import { Application, Projection, Tenancy } from "../../src/index.ts"
import { AlertCase, alertStatus, caseStatus, escalation, openCases } from "../../aggregates/alert-case.ts"
import { alertsTopic, signals } from "../../projections/signals.ts"

export default Application.make({
  name: "two-tenants",
  aggregates: [AlertCase],
  projections: [Projection.async(signals), Projection.inline(caseStatus)],
  policies: [openCases, escalation],
  views: [alertStatus],
  pulsar: Tenancy.make({
    tenants: ["acme", "globex"],
    publisher: "millrace-relay",
    topics: [Tenancy.topic(alertsTopic), Tenancy.topic(AlertCase)]
  })
})
