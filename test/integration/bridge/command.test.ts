// The command `millrace bridge`, run as a process: rules in files, flags, output, probes, metrics and shutdown.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { BridgeOptions } from "../../../src/bridge/definition.ts"
import {
  type BothSides,
  bridgeTest as test,
  declare,
  eventually,
  full,
  messagesOf,
  publish,
  recordOf,
  removeRecords,
  tenant,
  unique
} from "../../support/bridge.ts"
import { type BridgeProcess, bridgeProcess, environmentOf, fileWith, rulesFile } from "../../support/bridge-process.ts"
import { run } from "../../support/cli.ts"
import { recordsOf } from "../../support/relay-kafka.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("kafka", "pulsar")

const rule = { from: "kafka:a", to: "pulsar:persistent://t/n/a" }
const mistakes: ReadonlyArray<readonly [name: string, text: string, code: number, message: RegExp]> = [
  ["rules.json", "{", 1, /rules\.json does not load: .*\ntry: write \{ "rules"/],
  ["rules.json", "{}", 2, /rules is missing; add it/],
  [
    "rules.json",
    JSON.stringify({ rules: [{ ...rule, wher: {} }] }),
    2,
    /rules\[0\]\.wher is not a known field; correct its name/
  ],
  ["rules.json", JSON.stringify({ rules: [{ ...rule, to: "kafka:b" }] }), 2, /both on Kafka; use MirrorMaker 2/],
  ["rules.ts", "export const bride = 1", 1, /rules\.ts has no bridge\ntry: export const bridge = Bridge\.make/],
  ["rules.json", JSON.stringify({ rules: [rule] }), 1, /MILLRACE_KAFKA_BROKERS is not set\ntry: a bridge needs/]
]
const json = (text: string) => JSON.parse(text) as Record<string, unknown>
const rulesOf = (text: string) => json(text)["rules"] as ReadonlyArray<Readonly<Record<string, unknown>>>
const fetched = (url: string) =>
  Effect.promise(async () => {
    const response = await fetch(url)
    return { status: response.status, text: await response.text() }
  })
/** The sum of a metric's values whose labels contain a text; undefined if there is none. */
const metric = (text: string, name: string, labels: string) =>
  text
    .split("\n")
    .filter((line) => line.startsWith(`${name}{`) && line.includes(labels))
    .reduce<number | undefined>((sum, line) => (sum ?? 0) + Number(line.split(" ").at(-1)), undefined)

suite("millrace bridge", () => {
  it.live("reports what is wrong with a rules file, and what to do", () =>
    Effect.scoped(
      Effect.gen(function* () {
        for (const [name, text, code, message] of mistakes) {
          const file = yield* fileWith(name, text)
          const ended = yield* run({}, "bridge", "--rules", file, "--once")
          assert.strictEqual(ended.code, code, ended.errors)
          assert.match(ended.errors, message)
        }
        const nothing = yield* run({}, "bridge", "--rules", "/nowhere.json")
        assert.match(nothing.errors, /the file \S*nowhere\.json does not exist\ntry: --rules FILE/)
      })
    )
  )

  for (const transport of ["native", "websocket"] as const) {
    test(
      "--dry-run lists the topics, --once mirrors them and prints what became of the records; dead letters arrive on both sides",
      Effect.fnUntraced(function* (sides) {
        const [name, topic, acme] = [unique("bridge"), unique("once"), unique("acme")]
        yield* tenant(sides, acme)
        yield* declare(sides.log, topic, 2)
        yield* declare(sides.log, `home.${topic}`, 1)
        const file = yield* rulesFile({
          name,
          rules: [
            {
              name: "out",
              from: `kafka:${topic}`,
              to: `pulsar:persistent://{tenant}/bridge/${topic}`,
              where: { header: "severity", equals: ["high", "critical"] },
              headers: { drop: ["debug"], rename: { colour: "color" } },
              tenants: { acme }
            },
            {
              name: "back",
              from: `pulsar:persistent://${acme}/bridge/{kind}`,
              to: "kafka:home.{kind}",
              key: { header: "id" }
            }
          ]
        })
        const severity = "high"
        yield* sides.log.append(topic, [
          recordOf("a", "1", { tenant: "acme", headers: { severity, debug: "x", colour: "red" } }),
          recordOf("b", "2", { tenant: "acme", headers: { severity: "low" }, partition: 1 }),
          recordOf("c", "3", { headers: { severity }, partition: 1 })
        ])
        yield* publish(sides, full(topic, acme), [
          { key: "x", value: "4", properties: { id: "i" } },
          { key: "y", value: "5" }
        ])
        const command = (...flags: ReadonlyArray<string>) =>
          run(environmentOf(sides.options), "bridge", "--rules", file, "--log-level", "none", ...flags)
        const plan = json((yield* command("--dry-run", "--json")).output)
        assert.deepStrictEqual(
          (plan["rules"] as ReadonlyArray<{ readonly topics: unknown }>).map(({ topics }) => topics),
          [[{ topic, partitions: 2 }], [{ topic: full(topic, acme), partitions: 1 }]]
        )
        assert.lengthOf(yield* recordsOf(sides.kafkaOptions, sides.log, `home.${topic}`), 0)
        const done = yield* command("--once", "--json")
        assert.strictEqual(done.code, 0, done.errors)
        const [out, back] = rulesOf(done.output)
        assert.deepInclude(out, { mirrored: 1, filtered: 1, returned: 0, dead: 1, lag: 0, halted: [] })
        assert.deepInclude(back, { mirrored: 1, dead: 1, lag: 0, halted: [] })
        const there = (yield* messagesOf(sides, full(topic, acme))).find(({ value }) => value === "1")
        assert.deepInclude(there!.properties, { color: "red", tenant: "acme", severity })
        assert.notProperty(there!.properties, "debug")
        const home = yield* recordsOf(sides.kafkaOptions, sides.log, `home.${topic}`)
        assert.deepStrictEqual(
          home.map(({ key, value }) => [key, value]),
          [["i", "4"]]
        )
        const [kafkaDeadLetter] = yield* recordsOf(sides.kafkaOptions, sides.log, `${topic}.bridge-errors`)
        assert.deepInclude(kafkaDeadLetter, { key: "c", value: "3" })
        assert.match(
          kafkaDeadLetter!.headers["millrace-bridge-error"]!,
          /the record has no tenant, which `to` \(.*\) needs/
        )
        const [pulsarDeadLetter] = yield* messagesOf(sides, `${full(topic, acme)}.bridge-errors`)
        assert.deepInclude(pulsarDeadLetter, { key: "y", value: "5" })
        assert.match(
          pulsarDeadLetter!.properties["millrace-bridge-error"]!,
          /the record has no header id, which is to be its key/
        )
        // the record that it brought to Pulsar is not mirrored back: it counts as returned in the first or the second run, or in none if the first
        // one ended before it arrived. The lag is 0 even if no record comes
        const [outAgain, backAgain] = rulesOf((yield* command("--once", "--json")).output)
        assert.deepInclude(outAgain, { mirrored: 0, dead: 0, lag: 0 })
        assert.deepInclude(backAgain, { mirrored: 0, dead: 0 })
        assert.isAtMost(Number(back!["returned"]) + Number(backAgain!["returned"]), 1)
        assert.match((yield* command("--once")).output, /^out: 0 mirrored, .*\nback: 0 mirrored, .* 0 dead\n$/)
      }),
      transport
    )
  }

  test("mirrors both ways until SIGTERM, ends with 0, and the next process continues", (sides) => untilStopped(sides))
  test("a halted rule is reported at /readyz, and its lag goes on being measured", (sides) => halted(sides))
})

const untilStopped = Effect.fnUntraced(function* (sides: BothSides) {
  const [name, topic] = [unique("bridge"), unique("runs")]
  yield* declare(sides.log, topic, 2)
  const options: BridgeOptions = {
    name,
    rules: [
      { name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` },
      { name: "back", from: `pulsar:${full(topic)}`, to: `kafka:${topic}` }
    ]
  }
  const file = yield* rulesFile(options)
  let written = 0
  const write = Effect.gen(function* () {
    const some = Array.from({ length: 200 }, () => written++)
    const half = some.splice(100)
    yield* sides.log.append(
      topic,
      some.map((i) => recordOf(`k${i % 5}`, `${i}`, { partition: (i % 5) % 2 }))
    )
    yield* publish(
      sides,
      full(topic),
      half.map((i) => ({ key: `p${i % 5}`, value: `${i}` }))
    )
  })
  const metricsOf = (one: BridgeProcess) =>
    Effect.suspend(() => {
      const url = one.url()
      return url === undefined ? Effect.succeed("") : Effect.map(fetched(`${url}/metrics`), ({ text }) => text)
    })
  for (let round = 0; round < 2; round++) {
    const one = yield* bridgeProcess(sides.options, file)
    yield* write
    // records have moved in both directions
    const counted = "millrace_bridge_records_total"
    yield* eventually(
      Effect.map(metricsOf(one), (text) =>
        ["out", "back"].every((rule) => (metric(text, counted, `rule="${rule}",outcome="mirrored"`) ?? 0) > 0)
      ),
      one.said
    )
    assert.strictEqual((yield* fetched(`${one.url()}/healthz`)).status, 200)
    yield* eventually(
      Effect.map(fetched(`${one.url()}/readyz`), ({ status, text }) => status === 200 && text.includes('"ready":true'))
    )
    yield* write
    if (round === 1)
      // everything is mirrored, and nothing is behind
      yield* eventually(
        Effect.map(metricsOf(one), (text) => {
          const lag = (rule: string) => metric(text, "millrace_bridge_lag", `rule="${rule}"`)
          return (metric(text, counted, 'outcome="returned"') ?? 0) > 0 && lag("out") === 0 && lag("back") === 0
        }),
        one.said
      )
    one.signal("SIGTERM")
    assert.strictEqual(yield* Effect.promise(() => one.ended), 0, one.said())
  }
  const rest = yield* run(environmentOf(sides.options), "bridge", "--rules", file, "--once")
  assert.strictEqual(rest.code, 0, rest.errors)
  const all = Array.from({ length: written }, (_, i) => i)
  interface Some {
    readonly key: string | null
    readonly value: string | null
  }
  const numbers = (found: ReadonlyArray<Some>) => found.map(({ value }) => Number(value))
  const onKafka = yield* recordsOf(sides.kafkaOptions, sides.log, topic)
  const onPulsar = yield* messagesOf(sides, full(topic))
  assert.deepStrictEqual(
    numbers(onKafka).toSorted((a, b) => a - b),
    all
  )
  assert.deepStrictEqual(
    numbers(onPulsar).toSorted((a, b) => a - b),
    all
  )
  for (const found of [onKafka, onPulsar])
    for (const [key, some] of Map.groupBy<string | null, Some>(found, ({ key }) => key))
      assert.deepStrictEqual(
        numbers(some),
        numbers(some).toSorted((a, b) => a - b),
        `order of ${key}`
      )
})

const halted = Effect.fnUntraced(function* (sides: BothSides) {
  const [name, topic] = [unique("bridge"), unique("halts")]
  yield* declare(sides.log, topic, 1)
  const values = (count: number) => Array.from({ length: count }, (_, i) => recordOf("k", `${i}`))
  yield* sides.log.append(topic, values(2))
  const file = yield* rulesFile({
    name,
    rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }]
  })
  yield* run(environmentOf(sides.options), "bridge", "--rules", file, "--once")
  yield* sides.log.append(topic, values(5))
  yield* Effect.promise(() => removeRecords(sides.kafkaOptions, topic, 4))
  const one = yield* bridgeProcess(sides.options, file)
  yield* eventually(
    Effect.sync(() => one.url() !== undefined),
    one.said
  )
  const reason = /retention deleted records.*lost: .*continue/
  let seen = ""
  yield* eventually(
    Effect.map(fetched(`${one.url()}/readyz`), ({ status, text }) => {
      seen = `${status} ${text}`
      return status === 503 && reason.test(text)
    }),
    () => seen
  )
  const lag = Effect.map(fetched(`${one.url()}/metrics`), (found) =>
    metric(found.text, "millrace_bridge_lag", 'rule="out"')
  )
  yield* eventually(
    Effect.map(lag, (records) => records === 3),
    one.said
  )
  yield* sides.log.append(topic, values(4))
  yield* eventually(
    Effect.map(lag, (records) => records === 7),
    one.said
  )
  one.signal("SIGTERM")
  assert.strictEqual(yield* Effect.promise(() => one.ended), 0, one.said())
})
