// The application that the commands, the server and the tests run: the reference application, entity signals.
import { Application, Projection, Tenancy } from "./src/index.ts"
import { AlertCase, alertStatus, caseStatus, escalation, openCases } from "./aggregates/alert-case.ts"
import { alertsTopic, signals } from "./projections/signals.ts"

/** Whose flights there are. */
const carriers = ["9e", "aa", "as", "b6", "dl", "ev", "f9", "fl", "ha", "mq", "oo", "ua", "us", "vx", "wn", "yv"]

export default Application.make({
  name: "signals",
  aggregates: [AlertCase],
  projections: [Projection.async(signals), Projection.inline(caseStatus)],
  policies: [openCases, escalation],
  views: [alertStatus],
  pulsar: Tenancy.make({ tenants: carriers, publisher: "millrace-relay", topics: [Tenancy.topic(alertsTopic)] })
})
