// Definitions of bridges: those that cannot work are refused with the field, its value and what to do.
import { assert, describe, it } from "@effect/vitest"
import { Bridge, type BridgeOptions } from "../../../src/bridge/definition.ts"
import type { Rule } from "../../../src/bridge/rule.ts"
import { parseTopicPattern } from "../../../src/bridge/topic-pattern.ts"

const out = { from: "kafka:flights", to: "pulsar:persistent://public/default/flights" }
const back = { from: "pulsar:persistent://public/default/flights", to: "kafka:flights" }
/** The name that `out` gets. */
const named = "rule kafka.flights-to-pulsar.public.default.flights"
const pulsarName =
  "a Pulsar topic is named in full, persistent://TENANT/NAMESPACE/TOPIC; non-persistent topics keep no messages to resume from"

const mistakes: ReadonlyArray<readonly [title: string, rules: ReadonlyArray<Rule>, message: string]> = [
  ["no rules", [], "`rules` is empty, so nothing would be mirrored; write { rules: [{ from, to }] }"],
  [
    "a topic without its side",
    [{ ...out, name: "r", from: "flights" }],
    "rule r: `from` is 'flights': it must begin with kafka: or pulsar:; correct it"
  ],
  [
    "both topics on one side",
    [{ name: "r", from: "kafka:a", to: "kafka:b" }],
    "rule r: `from` is 'kafka:a' and `to` is 'kafka:b', which are both on Kafka; use MirrorMaker 2 within Kafka, or name a topic of the other side"
  ],
  [
    "a short Pulsar name",
    [{ ...out, name: "r", to: "pulsar:flights" }],
    `rule r: \`to\` is 'pulsar:flights': ${pulsarName}; correct it`
  ],
  [
    "a non-persistent topic",
    [{ ...out, name: "r", to: "pulsar:non-persistent://a/b/c" }],
    `rule r: \`to\` is 'pulsar:non-persistent://a/b/c': ${pulsarName}; correct it`
  ],
  [
    "a word that only `to` has",
    [{ ...out, name: "r", to: "pulsar:persistent://{x}/b/c" }],
    "rule r: `to` is 'pulsar:persistent://{x}/b/c' with {x}, which `from` ('kafka:flights') does not have; add {x} to `from`, or replace it by a fixed name in `to`"
  ],
  [
    "a word twice",
    [{ ...out, name: "r", from: "kafka:{a}.{a}", to: "pulsar:persistent://a/b/{a}" }],
    "rule r: `from` is 'kafka:{a}.{a}' with {a} twice; use a different word for each"
  ],
  [
    "several topics into one",
    [{ ...out, name: "r", from: "kafka:flights.{x}" }],
    "rule r: `to` is 'pulsar:persistent://public/default/flights' without {x} of `from`, so several topics would be mirrored into one; add {x} to `to`, or write a rule for each topic"
  ],
  [
    "words without text between them",
    [{ ...out, name: "r", from: "kafka:{a}{b}" }],
    "rule r: `from` is 'kafka:{a}{b}': two words in braces need text between them, which shows where the first one ends; correct it"
  ],
  [
    "a filter that is not a regular expression",
    [{ ...out, name: "r", where: { header: "a", matches: "(" } }],
    "rule r: `matches` of header a in `where` is '(', which is not a regular expression (Invalid regular expression: /(/: Unterminated group); correct it"
  ],
  [
    "a filter with two conditions",
    [{ ...out, name: "r", where: { header: "a", matches: "b", equals: "b" } }],
    "rule r: the filter of header a in `where` has both `equals` and `matches`; remove one"
  ],
  [
    "a change of the bridge's own header",
    [{ ...out, name: "r", headers: { drop: ["millrace-bridge-origin"] } }],
    "rule r: `headers` names millrace-bridge-origin, which the bridge itself writes to know where a record came from; remove it from `headers`"
  ],
  [
    "a header that is dropped and renamed",
    [{ ...out, name: "r", headers: { drop: ["a"], rename: { a: "b" } } }],
    "rule r: `headers` both drops and renames a; do one of the two"
  ],
  [
    "two headers renamed to one",
    [{ ...out, name: "r", headers: { rename: { a: "c", b: "c" } } }],
    "rule r: `headers.rename` gives two headers the name c; use different names"
  ],
  [
    "two tenants renamed to one",
    [{ ...out, name: "r", tenants: { a: "c", b: "c" } }],
    "rule r: `tenants` gives two tenants the name c, so they could not be told apart on Pulsar; use different names"
  ],
  [
    "two rules of one name",
    [
      { ...out, name: "a" },
      { ...back, name: "a" }
    ],
    "rule a: another rule has the same name; give each rule its own `name`"
  ],
  [
    "two rules that mirror the same topics",
    [out, { ...out, name: "again" }],
    "rule again: it mirrors the same topics as rule kafka.flights-to-pulsar.public.default.flights, so each record would arrive twice; remove one of the two"
  ],
  [
    "a name with a space",
    [{ ...out, name: "a b" }],
    "rule a b: its `name` may have letters, digits, '.', '_' and '-' only, and 120 characters at most; set another `name`"
  ],
  [
    "an error topic with its side",
    [{ ...out, errors: "kafka:dead" }],
    `${named}: \`errors\` is 'kafka:dead': a Kafka topic's name has letters, digits, '.', '_' and '-' only, 249 characters at most; name a topic on Kafka, without 'kafka:'`
  ],
  [
    "an error topic that is the source",
    [{ ...out, errors: "flights" }],
    `${named}: \`errors\` is 'flights', a topic that the rule itself mirrors; name another topic`
  ],
  [
    "a circle",
    [
      { name: "first", from: "kafka:a", to: "pulsar:persistent://t/n/b" },
      { from: "pulsar:persistent://t/n/b", to: "kafka:c" },
      { from: "kafka:c", to: "pulsar:persistent://t/n/d" },
      { from: "pulsar:persistent://t/n/d", to: "kafka:a" }
    ],
    "rule first: rules form a circle: kafka:a → pulsar:persistent://t/n/b → kafka:c → pulsar:persistent://t/n/d → kafka:a; remove one of the rules, so that topics mirror each other only in pairs"
  ]
]

const invalid = (problem: string) => `the bridge's definition is not valid: ${problem}`
const misspelled: ReadonlyArray<readonly [definition: unknown, message: string]> = [
  [null, invalid("the definition is null, but must be an object; correct it")],
  [{}, invalid("rules is missing; add it")],
  [{ rules: [{ from: "kafka:a" }] }, invalid("rules[0].to is missing; add it")],
  // each of these would mirror everything, although only some records were meant
  [
    { rules: [{ ...out, wher: { header: "a" } }] },
    invalid("rules[0].wher is not a known field; correct its name, or remove it")
  ],
  [
    { rules: [{ ...out, where: { header: "a", equal: "b" } }] },
    invalid("rules[0].where.equal is not a known field; correct its name, or remove it")
  ],
  [
    { rules: [{ ...out, where: [{ header: "a", equals: 1 }] }] },
    invalid("rules[0].where[0].equals is 1, but must be a string or an array; correct it")
  ],
  [
    { rules: [{ ...out, where: "a" }] },
    invalid('rules[0].where is "a", but must be an object with `header`, or a function; correct it')
  ],
  [
    { rules: [{ ...out, headers: { drop: "a" } }] },
    invalid('rules[0].headers.drop is "a", but must be an array; correct it')
  ],
  [
    { rules: [{ ...out, start: "first" }] },
    invalid('rules[0].start is "first", but must be "earliest" or "latest"; correct it')
  ],
  [
    { name: "a b", rules: [out] },
    "`name` is 'a b'; use letters, digits, '.', '_' and '-' only, and 60 characters at most"
  ],
  [
    { pulsar: "", rules: [out] },
    "`pulsar` is ''; use letters, digits, '.', '_' and '-' only, and 60 characters at most"
  ]
]
const refusal = (definition: BridgeOptions): string => {
  try {
    Bridge.make(definition)
  } catch (error) {
    return (error as Error).message
  }
  return "not refused"
}

describe("a bridge's definition", () => {
  it.each(misspelled)("with a wrong field is refused: %j", (definition, message) => {
    assert.strictEqual(refusal(definition as BridgeOptions), message)
  })
  it.each(mistakes)("is refused: %s", (_title, rules, message) => {
    assert.strictEqual(refusal({ rules }), message)
  })
  it("may have two rules that mirror each other", () => {
    assert.lengthOf(Bridge.make({ rules: [out, back] }).rules, 2)
  })
})
it("a word of a pattern matches a part of a topic's name, and the text around it matches only itself", () => {
  const pattern = parseTopicPattern("kafka:flights.{airline}")
  assert.isObject(pattern)
  if (typeof pattern === "string") return
  assert.deepStrictEqual(pattern.matcher.exec("flights.AA")?.slice(1), ["AA"])
  assert.isNull(pattern.matcher.exec("flightsXAA"))
})
