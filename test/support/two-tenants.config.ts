// The reference application with two tenants on Pulsar, acme and globex. The relay signs in as millrace-relay.
import { Application, Projection, Tenancy } from "../../src/index.ts"
import { alertsTopic, signals } from "../../projections/signals.ts"

export default Application.make({
  name: "two-tenants",
  projections: [Projection.async(signals)],
  pulsar: Tenancy.make({
    tenants: ["acme", "globex"],
    publisher: "millrace-relay",
    topics: [Tenancy.topic(alertsTopic)]
  })
})
