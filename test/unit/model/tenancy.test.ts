// Declarations of tenants on Pulsar: names, tiers, defaults.
import { assert, describe, it } from "@effect/vitest"
import { Tenancy } from "../../../src/model/tenancy.ts"
import { alertsTopic } from "../../../projections/signals.ts"

const alerts = Tenancy.topic(alertsTopic, { tier: { by: "segment", values: ["gold", "silver"] } })

describe("Tenancy", () => {
  it("the topic of a tier has the tier's name before the version", () => {
    assert.deepStrictEqual(Tenancy.topicsOf(alerts), ["alerts.v1", "alerts-gold.v1", "alerts-silver.v1"])
    assert.strictEqual(Tenancy.topicFor(alerts, { segment: "gold" }), "alerts-gold.v1")
    assert.strictEqual(Tenancy.topicFor(alerts, { segment: "copper" }), "alerts.v1")
    assert.strictEqual(Tenancy.topicFor(alerts, { segment: 7 }), "alerts.v1")
    assert.strictEqual(Tenancy.topicFor(Tenancy.topic(alertsTopic), { segment: "gold" }), "alerts.v1")
  })
  it("batching is off by default", () => {
    assert.isFalse(alerts.batching)
    assert.isTrue(Tenancy.topic(alertsTopic, { batching: true }).batching)
  })
  it("by default a tenant's role has its name, retention is 7 days, and deduplication is on", () => {
    const { namespace, policies, tenants } = Tenancy.make({ tenants: ["acme"], topics: [alerts] })
    assert.deepStrictEqual(tenants, [{ name: "acme", role: "acme", actions: ["consume", "produce"] }])
    assert.strictEqual(namespace, "alerts")
    assert.strictEqual(policies.retentionMs, 7 * 24 * 3_600_000)
    assert.isTrue(policies.deduplication)
    const bySize = Tenancy.make({ tenants: [], topics: [], retention: { megabytes: 10 } }).policies
    assert.deepStrictEqual([bySize.retentionMs, bySize.retentionMegabytes], [Infinity, 10])
  })
  it("messages of undeclared tenants are parked, unless `undeclared` is `wait`", () => {
    const tenancy = Tenancy.make({ tenants: ["acme"], topics: [alerts] })
    assert.isTrue(Tenancy.parks(tenancy, "globex"))
    assert.isFalse(Tenancy.parks(tenancy, "acme"))
    assert.isFalse(Tenancy.parks(Tenancy.make({ tenants: ["acme"], topics: [alerts], undeclared: "wait" }), "globex"))
  })
  it("names that Pulsar does not accept are refused, and names that are declared twice", () => {
    const make = (tenants: ReadonlyArray<string>, topics = [alerts]) => Tenancy.make({ tenants, topics })
    assert.throws(() => make(["a/b"]), /tenant "a\/b": the name is not allowed; use at most 128 letters/)
    assert.throws(() => make(["a", "a"]), /tenant a is declared twice; declare it once/)
    assert.throws(() => make(["a"], [alerts, alerts]), /topic alerts.v1 is declared twice/)
    assert.throws(() => Tenancy.topic(alertsTopic, { partitions: 0 }), /partitions is 0/)
    assert.throws(() => Tenancy.topic(alertsTopic, { tier: { by: "segment", values: ["a/b"] } }), /tier "a\/b"/)
    // @ts-expect-error the topic has no such field
    Tenancy.topic(alertsTopic, { tier: { by: "colour", values: [] } })
  })
})
