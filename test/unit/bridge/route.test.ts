// What one rule makes of single records: where they go and in which form, and which are left out or become dead letters.
import { assert, describe, it } from "@effect/vitest"
import { toDeadLetter } from "../../../src/bridge/dead-letter.ts"
import { Bridge } from "../../../src/bridge/definition.ts"
import type { BridgeRecord } from "../../../src/bridge/record.ts"
import { route, type RouteContext } from "../../../src/bridge/route.ts"
import type { Rule } from "../../../src/bridge/rule.ts"

const out = { from: "kafka:flights", to: "pulsar:persistent://public/default/flights" }
const back = { from: "pulsar:persistent://public/default/flights", to: "kafka:flights" }

const record: BridgeRecord = { key: "k", value: "{}", eventTime: 5, headers: {} }
const contextOf = (rule: Rule, words: Record<string, string> = {}): RouteContext => {
  const [checked] = Bridge.make({ rules: [rule] }).rules
  const clusters = { kafka: "kafka:K", pulsar: "pulsar:P" }
  const [source, target] = [checked!.source.side, checked!.target.side]
  return {
    rule: checked!,
    words,
    bridge: "b",
    sourceCluster: clusters[source],
    targetCluster: clusters[target],
    stream: "s"
  }
}
const sent = (rule: Rule, given: Partial<BridgeRecord> = {}, words: Record<string, string> = {}) => {
  const routed = route(contextOf(rule, words), { ...record, ...given }, "7")
  if (routed.kind !== "send") throw new Error(JSON.stringify(routed))
  return { topic: routed.topic, ...routed.record, headers: { ...routed.record.headers } }
}

describe("what becomes of a record under a rule", () => {
  it("key, value, event time and headers stay, and the bridge's headers say where the record came from", () => {
    assert.deepStrictEqual(sent(out, { headers: { a: "1" } }), {
      topic: "persistent://public/default/flights",
      ...record,
      headers: {
        a: "1",
        "millrace-bridge-origin": "b@kafka:K",
        "millrace-bridge-stream": "s",
        "millrace-bridge-offset": "7"
      }
    })
  })
  it("a record is not sent to a cluster that it came through", () => {
    const headers = { "millrace-bridge-origin": "other@kafka:X b@kafka:K" }
    assert.deepStrictEqual(route(contextOf(back), { ...record, headers }, "7"), { kind: "returned" })
    assert.strictEqual(
      sent(out, { headers: { "millrace-bridge-origin": "x@pulsar:Q" } }).headers["millrace-bridge-origin"],
      "x@pulsar:Q b@kafka:K"
    )
  })
  it("`where` filters by headers and by a function, and a function that throws makes a dead letter", () => {
    const by = (where: Rule["where"] & {}, headers: Record<string, string>) =>
      route(contextOf({ ...out, where }), { ...record, headers }, "7").kind
    assert.strictEqual(by({ header: "a" }, {}), "filtered")
    assert.strictEqual(by({ header: "a", not: true }, {}), "send")
    assert.strictEqual(by({ header: "a", equals: ["x", "y"] }, { a: "y" }), "send")
    assert.strictEqual(by([{ header: "a", matches: "^x" }, { header: "b" }], { a: "xx" }), "filtered")
    assert.strictEqual(
      by(({ key }) => key === "z", {}),
      "filtered"
    )
    assert.strictEqual(
      by(() => {
        throw new Error("no")
      }, {}),
      "dead"
    )
  })
  it("`key` and `headers` are applied, and a record without the header of its key is dead", () => {
    const rule: Rule = { ...out, key: { header: "id" }, headers: { drop: ["a"], rename: { b: "c" }, set: { d: "4" } } }
    const { headers, key } = sent(rule, { headers: { id: "i", a: "1", b: "2", __proto__x: "y" } })
    assert.strictEqual(key, "i")
    assert.deepInclude(headers, { id: "i", c: "2", d: "4" })
    assert.notProperty(headers, "a")
    assert.strictEqual(route(contextOf(rule), record, "7").kind, "dead")
  })
  it("tenants get their names on the other side, and a record without a tenant that `to` needs is dead", () => {
    const tenants = { acme: "acme-prod" }
    const there = { from: "kafka:alerts", to: "pulsar:persistent://{tenant}/alerts/alerts", tenants }
    assert.strictEqual(sent(there, { headers: { tenant: "acme" } }).topic, "persistent://acme-prod/alerts/alerts")
    assert.strictEqual(sent(there, { headers: { tenant: "other" } }).topic, "persistent://other/alerts/alerts")
    assert.strictEqual(route(contextOf(there), record, "7").kind, "dead")
    assert.strictEqual(route(contextOf(there), { ...record, headers: { tenant: "a/b" } }, "7").kind, "dead")
    const back = { from: "pulsar:persistent://{tenant}/alerts/alerts", to: "kafka:alerts", tenants }
    assert.strictEqual(sent(back, { headers: { tenant: "liar" } }, { tenant: "acme-prod" }).headers["tenant"], "acme")
  })
  it("deletions, empty texts, missing keys and event times that Pulsar cannot have are the same after a round trip", () => {
    for (const given of [
      { value: null },
      { value: "" },
      { key: null },
      { eventTime: -5 },
      { eventTime: 0 },
      { eventTime: 3.5 },
      { eventTime: 9e15 }
    ] satisfies ReadonlyArray<Partial<BridgeRecord>>) {
      const there = sent(out, given)
      assert.isAbove(there.eventTime, 0)
      assert.isAtMost(there.eventTime, 8.64e15)
      // as Pulsar delivers it
      const onPulsar = { ...there, key: there.key ?? "", value: there.value ?? "", headers: { ...there.headers } }
      const { "millrace-bridge-origin": _, ...headers } = onPulsar.headers
      const home = sent(back, { ...onPulsar, headers })
      assert.deepInclude({ key: home.key, value: home.value, eventTime: home.eventTime }, given)
    }
  })
  it("records that are not text, or that Pulsar's client would cut off, become dead letters with the reason", () => {
    for (const given of [
      { value: "\ufffd" },
      { value: '"\udcff"' },
      { key: "k\udcff" },
      { headers: { a: "\ud800" } },
      { key: "\ufffd" },
      { headers: { a: "\ufffd" } },
      { key: "a\0b" },
      { headers: { a: "x\0" } }
    ]) {
      assert.strictEqual(route(contextOf(out), { ...record, ...given }, "7").kind, "dead")
    }
    const deadLetter = toDeadLetter(contextOf(out), { ...record, headers: { a: "1" } }, "7", "why")
    assert.deepInclude(deadLetter.headers, { a: "1", "millrace-bridge-error": "why", "millrace-bridge-offset": "7" })
  })
})
