// The reference application for two tenants on Pulsar, acme and globex, whose brokers know the relay as millrace-relay.
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
