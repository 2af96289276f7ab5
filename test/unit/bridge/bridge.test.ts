// The bridge's rules: what makes no sense is refused with what to do, and what becomes of single records. It reaches no system.
import { assert, describe, it } from "@effect/vitest"
import { Bridge, type BridgeOptions, type BridgeRecord, type Rule } from "../../../src/bridge/rules.ts"
import { comparePositions, parsePosition, formatPosition } from "../../../src/bridge/pulsar-position.ts"
import { parseTopicPattern } from "../../../src/bridge/topic-pattern.ts"
import { deadLetter } from "../../../src/bridge/dead-letter.ts"
import { route, type RouteContext } from "../../../src/bridge/route.ts"
import { Offsets } from "../../../src/bridge/stream.ts"

const out = { from: "kafka:flights", to: "pulsar:persistent://public/default/flights" }
const back = { from: "pulsar:persistent://public/default/flights", to: "kafka:flights" }

const mistakes: ReadonlyArray<readonly [title: string, rules: ReadonlyArray<Rule>, message: RegExp]> = [
  ["no rules", [], /mirrors nothing: write \{ rules/],
  ["no side", [{ ...out, from: "flights" }], /`from` is 'flights': it begins with kafka: or pulsar:/],
  ["one side twice", [{ from: "kafka:a", to: "kafka:b" }], /are both on Kafka; use MirrorMaker 2/],
  ["a short name", [{ ...out, to: "pulsar:flights" }], /named in full, persistent:\/\/TENANT/],
  ["no durable topic", [{ ...out, to: "pulsar:non-persistent://a/b/c" }], /others keep nothing to go on from/],
  ["a word from nowhere", [{ ...out, to: "pulsar:persistent://{x}/b/c" }], /`to` has \{x\}, which `from` has not/],
  [
    "many into one",
    [{ ...out, from: "kafka:flights.{x}" }],
    /several topics of `from` would become one: `to` lacks \{x\}/
  ],
  ["words without a border", [{ ...out, from: "kafka:{a}{b}" }], /nothing tells where one \{word\} ends/],
  ["a broken filter", [{ ...out, where: { header: "a", matches: "(" } }], /is no regular expression/],
  [
    "a filter of two minds",
    [{ ...out, where: { header: "a", matches: "b", equals: "b" } }],
    /has `equals` and `matches`; use one/
  ],
  [
    "the bridge's own header",
    [{ ...out, headers: { drop: ["millrace-bridge-origin"] } }],
    /is the bridge's own header/
  ],
  ["dropped and renamed", [{ ...out, headers: { drop: ["a"], rename: { a: "b" } } }], /is dropped and renamed/],
  ["two into one header", [{ ...out, headers: { rename: { a: "c", b: "c" } } }], /two headers become c/],
  ["two tenants into one", [{ ...out, tenants: { a: "c", b: "c" } }], /two tenants become c/],
  [
    "one name twice",
    [
      { ...out, name: "a" },
      { ...back, name: "a" }
    ],
    /two rules of this name/
  ],
  ["one way twice", [out, { ...out, name: "again" }], /each record would be there twice/],
  ["a name that none can have", [{ ...out, name: "a b" }], /a name has letters, digits/],
  [
    "dead letters with the name of their side",
    [{ ...out, errors: "kafka:dead" }],
    /`errors` is 'kafka:dead': .*name a topic on Kafka, without 'kafka:'/
  ],
  ["dead letters into the source", [{ ...out, errors: "flights" }], /'flights', which it mirrors itself/],
  [
    "a circle",
    [
      { from: "kafka:a", to: "pulsar:persistent://t/n/b" },
      { from: "pulsar:persistent://t/n/b", to: "kafka:c" },
      { from: "kafka:c", to: "pulsar:persistent://t/n/d" },
      { from: "pulsar:persistent://t/n/d", to: "kafka:a" }
    ],
    /leads in a circle: kafka:a → pulsar:persistent:\/\/t\/n\/b → kafka:c → pulsar:persistent:\/\/t\/n\/d → kafka:a/
  ]
]
const record: BridgeRecord = { key: "k", value: "{}", eventTime: 5, headers: {} }
const wayOf = (rule: Rule, words: Record<string, string> = {}): RouteContext => {
  const [made] = Bridge.make({ rules: [rule] }).rules
  const [source, target] = made!.source.side === "kafka" ? ["kafka:K", "pulsar:P"] : ["pulsar:P", "kafka:K"]
  return { rule: made!, words, bridge: "b", source: source!, target: target!, stream: "s" }
}
const sent = (rule: Rule, given: Partial<BridgeRecord> = {}, words: Record<string, string> = {}) => {
  const routed = route(wayOf(rule, words), { ...record, ...given }, "7")
  if (routed.kind !== "send") throw new Error(JSON.stringify(routed))
  return { topic: routed.topic, ...routed.record, headers: { ...routed.record.headers } }
}

const misspelled: ReadonlyArray<readonly [definition: unknown, message: RegExp]> = [
  [null, /it: expected object/],
  [{}, /rules is missing; add it/],
  [{ rules: [{ from: "kafka:a" }] }, /rules\[0\]\.to is missing/],
  // each of these would mirror everything, where only some was meant
  [{ rules: [{ ...out, wher: { header: "a" } }] }, /rules\[0\]\.wher means nothing here; correct its name/],
  [{ rules: [{ ...out, where: { header: "a", equal: "b" } }] }, /rules\[0\]\.where\.equal means nothing here/],
  [{ rules: [{ ...out, where: [{ header: "a", equals: 1 }] }] }, /rules\[0\]\.where\[0\]\.equals: expected string/],
  [{ rules: [{ ...out, where: "a" }] }, /rules\[0\]\.where: expected an object with `header`, or a function/],
  [{ rules: [{ ...out, headers: { drop: "a" } }] }, /rules\[0\]\.headers\.drop: expected array/],
  [{ rules: [{ ...out, start: "first" }] }, /rules\[0\]\.start: expected "earliest" | "latest"/]
]

describe("rules of a bridge", () => {
  it.each(misspelled)("fields that do not fit: %j", (definition, message) => {
    assert.throws(() => Bridge.make(definition as BridgeOptions), message)
  })
  it.each(mistakes)("refused: %s", (_title, rules, message) => {
    assert.throws(() => Bridge.make({ rules }), message)
  })
  it("two rules may mirror each other", () => {
    assert.lengthOf(Bridge.make({ rules: [out, back] }).rules, 2)
  })
  it("what a pattern matches, and what not", () => {
    const pattern = parseTopicPattern("kafka:flights.{airline}")
    assert.isObject(pattern)
    if (typeof pattern === "string") return
    assert.deepStrictEqual(pattern.matcher.exec("flights.AA")?.slice(1), ["AA"])
    assert.isNull(pattern.matcher.exec("flightsXAA"))
  })
})

describe("what becomes of a record", () => {
  it("it keeps key, value, time and headers, and says where it came from", () => {
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
  it("it does not go back to where it was", () => {
    const headers = { "millrace-bridge-origin": "other@kafka:X b@kafka:K" }
    assert.deepStrictEqual(route(wayOf(back), { ...record, headers }, "7"), { kind: "returned" })
    assert.strictEqual(
      sent(out, { headers: { "millrace-bridge-origin": "x@pulsar:Q" } }).headers["millrace-bridge-origin"],
      "x@pulsar:Q b@kafka:K"
    )
  })
  it("filters by headers and by code", () => {
    const by = (where: Rule["where"] & {}, headers: Record<string, string>) =>
      route(wayOf({ ...out, where }), { ...record, headers }, "7").kind
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
  it("maps key and headers", () => {
    const rule: Rule = { ...out, key: { header: "id" }, headers: { drop: ["a"], rename: { b: "c" }, set: { d: "4" } } }
    const { headers, key } = sent(rule, { headers: { id: "i", a: "1", b: "2", __proto__x: "y" } })
    assert.strictEqual(key, "i")
    assert.deepInclude(headers, { id: "i", c: "2", d: "4" })
    assert.notProperty(headers, "a")
    assert.strictEqual(route(wayOf(rule), record, "7").kind, "dead")
  })
  it("tenants have their names on both sides", () => {
    const tenants = { acme: "acme-prod" }
    const way = { from: "kafka:alerts", to: "pulsar:persistent://{tenant}/alerts/alerts", tenants }
    assert.strictEqual(sent(way, { headers: { tenant: "acme" } }).topic, "persistent://acme-prod/alerts/alerts")
    assert.strictEqual(sent(way, { headers: { tenant: "other" } }).topic, "persistent://other/alerts/alerts")
    assert.strictEqual(route(wayOf(way), record, "7").kind, "dead")
    assert.strictEqual(route(wayOf(way), { ...record, headers: { tenant: "a/b" } }, "7").kind, "dead")
    const home = { from: "pulsar:persistent://{tenant}/alerts/alerts", to: "kafka:alerts", tenants }
    assert.strictEqual(sent(home, { headers: { tenant: "liar" } }, { tenant: "acme-prod" }).headers["tenant"], "acme")
  })
  it("deletions, empty texts, missing keys and old times come back as they went", () => {
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
      // as Pulsar hands it out
      const onPulsar = { ...there, key: there.key ?? "", value: there.value ?? "", headers: { ...there.headers } }
      const { "millrace-bridge-origin": _, ...headers } = onPulsar.headers
      const home = sent(back, { ...onPulsar, headers })
      assert.deepInclude({ key: home.key, value: home.value, eventTime: home.eventTime }, given)
    }
  })
  it("what is no text is a dead letter, and nothing is cut off silently", () => {
    for (const given of [
      { value: "\ufffd" },
      { key: "\ufffd" },
      { headers: { a: "\ufffd" } },
      { key: "a\0b" },
      { headers: { a: "x\0" } }
    ]) {
      assert.strictEqual(route(wayOf(out), { ...record, ...given }, "7").kind, "dead")
    }
    const letter = deadLetter(wayOf(out), { ...record, headers: { a: "1" } }, "7", "why")
    assert.deepInclude(letter.headers, { a: "1", "millrace-bridge-error": "why", "millrace-bridge-offset": "7" })
  })
})

describe("places and offsets", () => {
  it("places are in order, and as text the same", () => {
    const place = { ledger: 3, entry: 2, batch: -1, batchSize: 1 }
    assert.deepStrictEqual(parsePosition(formatPosition(place)), place)
    assert.isUndefined(parsePosition("x"))
    assert.isBelow(comparePositions(place, { ...place, batch: 1 }), 0)
    assert.isAbove(comparePositions({ ...place, ledger: 4, entry: 0 }, place), 0)
  })
  it("a set of offsets has what was added", () => {
    const offsets = new Offsets()
    const added = [0, 7, 8, 65_535, 65_536, 5_000_000_000]
    for (const offset of added) offsets.add(offset)
    for (const offset of added) assert.isTrue(offsets.has(offset), String(offset))
    for (const offset of [1, 6, 9, 65_534, 65_537, 5_000_000_001]) assert.isFalse(offsets.has(offset), String(offset))
  })
})
