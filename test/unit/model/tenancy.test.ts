// Tenants as they are declared: names, tiers, what holds where nothing is said.
import { assert, describe, it } from "@effect/vitest"
import { Tenancy } from "../../../src/model/tenancy.ts"
import { alertsTopic } from "../../../projections/signals.ts"

const alerts = Tenancy.topic(alertsTopic, { tier: { by: "segment", values: ["gold", "silver"] } })

describe("Tenancy", () => {
  it("puts a tier's values into a topic of their own, before the version", () => {
    assert.deepStrictEqual(Tenancy.topicsOf(alerts), ["alerts.v1", "alerts-gold.v1", "alerts-silver.v1"])
    assert.strictEqual(Tenancy.topicFor(alerts, { segment: "gold" }), "alerts-gold.v1")
    assert.strictEqual(Tenancy.topicFor(alerts, { segment: "copper" }), "alerts.v1")
    assert.strictEqual(Tenancy.topicFor(alerts, { segment: 7 }), "alerts.v1")
    assert.strictEqual(Tenancy.topicFor(Tenancy.topic(alertsTopic), { segment: "gold" }), "alerts.v1")
  })
  it("sends no batches unless told so", () => {
    assert.isFalse(alerts.batching)
    assert.isTrue(Tenancy.topic(alertsTopic, { batching: true }).batching)
  })
  it("gives a tenant a role of its name, a week of retention, and deduplication", () => {
    const { namespace, policies, tenants } = Tenancy.make({ tenants: ["acme"], topics: [alerts] })
    assert.deepStrictEqual(tenants, [{ name: "acme", role: "acme", actions: ["consume", "produce"] }])
    assert.strictEqual(namespace, "alerts")
    assert.strictEqual(policies.retentionMs, 7 * 24 * 3_600_000)
    assert.isTrue(policies.deduplication)
    const bySize = Tenancy.make({ tenants: [], topics: [], retention: { megabytes: 10 } }).policies
    assert.deepStrictEqual([bySize.retentionMs, bySize.retentionMegabytes], [Infinity, 10])
  })
  it("parks what overflows of tenants that it does not declare, unless they are to wait", () => {
    const tenancy = Tenancy.make({ tenants: ["acme"], topics: [alerts] })
    assert.isTrue(Tenancy.parks(tenancy, "globex"))
    assert.isFalse(Tenancy.parks(tenancy, "acme"))
    assert.isFalse(Tenancy.parks(Tenancy.make({ tenants: ["acme"], topics: [alerts], undeclared: "wait" }), "globex"))
  })
  it("refuses names that Pulsar does not take, and two of one name", () => {
    const make = (tenants: ReadonlyArray<string>, topics = [alerts]) => Tenancy.make({ tenants, topics })
    assert.throws(() => make(["a/b"]), /tenant "a\/b": Pulsar takes letters/)
    assert.throws(() => make(["a", "a"]), /tenant a is named twice/)
    assert.throws(() => make(["a"], [alerts, alerts]), /topic alerts.v1 is named twice/)
    assert.throws(() => Tenancy.topic(alertsTopic, { partitions: 0 }), /partitions is 0/)
    assert.throws(() => Tenancy.topic(alertsTopic, { tier: { by: "segment", values: ["a/b"] } }), /tier "a\/b"/)
    // @ts-expect-error the field is none of the topic's
    Tenancy.topic(alertsTopic, { tier: { by: "colour", values: [] } })
  })
})
