// `millrace topics plan|apply|check` on Kafka and on the embedded log: the plan is what is applied, and what would break the order of keys is refused.
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import KafkaJs from "kafkajs"
import { shared } from "../../../stack/testing.ts"
import { Topic } from "../../../src/index.ts"
import type { TopicPlan } from "../../../src/log/topic-plan.ts"
import * as Cli from "../../support/cli.ts"
import { asOperator } from "../../support/kafka-engine.ts"
import { needing } from "../../support/stack.ts"
import { removed } from "../../support/removed.ts"

const config = ["--config", "test/support/topics.config.ts"]
const directory = mkdtempSync(join(tmpdir(), "millrace-topics-"))
afterAll(() => removed(directory))

let brokers: ReadonlyArray<string> = []
let made = 0
const fresh = () => `t${process.pid}-${made++}`

interface Report {
  readonly log: string
  readonly differs: boolean
  readonly topics: ReadonlyArray<TopicPlan>
}
/** Runs one of the commands for an application whose first topic has these options. */
const topics = (doing: string, options: object, ...more: ReadonlyArray<string>) =>
  Cli.run(
    { MILLRACE_KAFKA_BROKERS: brokers.join(), TEST_TOPICS: JSON.stringify(options) },
    "topics",
    doing,
    ...config,
    ...more
  )
const reported = Effect.fnUntraced(function* (doing: string, options: object, ...more: ReadonlyArray<string>) {
  const { code, errors, output } = yield* topics(doing, options, "--json", ...more)
  const { topics: plans, ...report } = JSON.parse(output) as Report
  return { ...report, code, errors, sights: plans[0]!, people: plans[1]! }
})
const settingsOf = (topic: string) =>
  asOperator(brokers, async (admin) => {
    const resources = [{ type: KafkaJs.ConfigResourceTypes.TOPIC, name: topic }]
    const found = await admin.describeConfigs({ includeSynonyms: false, resources })
    return Object.fromEntries(
      found.resources[0]!.configEntries.map(({ configName, configValue }) => [configName, configValue])
    )
  })
const partitionsOf = (topic: string) =>
  asOperator(brokers, async (admin) => {
    const { topics: found } = await admin.fetchTopicMetadata({ topics: [topic] })
    return found[0]!.partitions.length
  })
const test = (title: string, body: () => Effect.Effect<void>) => it.live(title, body, 90_000)

const suite = await needing("kafka")
suite("millrace topics on Kafka", () => {
  beforeAll(async () => {
    brokers = (await Effect.runPromise(shared("kafka"))).MILLRACE_KAFKA_BROKERS!.split(",")
  }, 120_000)

  test("apply creates the declared topics, and the next check finds nothing to do", () =>
    Effect.gen(function* () {
      const kafka = { replication: 1, minInSyncReplicas: 1, settings: { "segment.bytes": "10000000" } }
      const options = { name: fresh(), retention: "1 hour", kafka }
      const planned = yield* reported("plan", options)
      assert.deepInclude(planned, { code: 0, log: "Kafka", differs: true })
      assert.deepInclude(planned.sights, { action: "create" })
      assert.strictEqual(planned.sights.partitions.to, 3)
      const settings = Object.fromEntries(planned.sights.settings.map(({ name, to }) => [name, to]))
      assert.deepInclude(settings, {
        "replication.factor": "1",
        "min.insync.replicas": "1",
        "segment.bytes": "10000000",
        "cleanup.policy": "delete",
        "retention.ms": "3600000"
      })
      const { "replication.factor": _, ...expected } = settings
      const applied = yield* reported("apply", options)
      assert.deepStrictEqual(applied.sights, planned.sights)
      assert.deepInclude(yield* settingsOf(planned.sights.topic), expected)
      assert.strictEqual((yield* settingsOf(planned.people.topic))["cleanup.policy"], "compact")
      assert.strictEqual(yield* partitionsOf(planned.people.topic), 2)
      const checked = yield* reported("check", options)
      assert.deepInclude(checked, { code: 0, differs: false })
    }))

  test("a topic that goes to Pulsar alone is neither created on Kafka nor missing there", () =>
    Effect.gen(function* () {
      const name = fresh()
      const namesOf = (to: ReadonlyArray<string>) =>
        Effect.map(topics("plan", { name, to }, "--json"), ({ output }) =>
          (JSON.parse(output) as Report).topics.map(({ topic }) => topic.slice(name.length + 1))
        )
      assert.deepStrictEqual(yield* namesOf(["kafka", "pulsar"]), ["sights", "people", "greetings"])
      assert.deepStrictEqual(yield* namesOf(["pulsar"]), ["sights", "people"])
      const applied = yield* topics("apply", { name, to: ["pulsar"] })
      assert.strictEqual(applied.code, 0, applied.errors)
      const all = yield* asOperator(brokers, (admin) => admin.listTopics())
      assert.notInclude(all, `${name}.greetings`)
      const checked = yield* topics("check", { name, to: ["pulsar"] })
      assert.strictEqual(checked.code, 0, checked.output)
    }))

  test("a declared setting is shown with both values and changed; a setting that is not declared is left alone", () =>
    Effect.gen(function* () {
      const name = fresh()
      yield* topics("apply", { name })
      yield* asOperator(brokers, (admin) =>
        admin.alterConfigs({
          validateOnly: false,
          resources: [
            {
              type: KafkaJs.ConfigResourceTypes.TOPIC,
              name: `${name}.sights`,
              configEntries: [
                { name: "retention.ms", value: "5000" },
                { name: "max.message.bytes", value: "2000000" },
                { name: "segment.ms", value: "60000" }
              ]
            }
          ]
        })
      )
      const options = { name, kafka: { settings: { "local.retention.ms": "60000" } } }
      const checked = yield* reported("check", options)
      assert.deepInclude(checked, { code: 3, differs: true })
      assert.deepInclude(checked.sights, { action: "change", partitions: { from: 3, to: 3 } })
      assert.sameDeepMembers(
        [...checked.sights.settings],
        [
          { name: "local.retention.ms", from: "-2", to: "60000" },
          { name: "retention.ms", from: "5000", to: "-1" },
          { name: "message.timestamp.type", from: "CreateTime", to: "LogAppendTime" }
        ]
      )
      const shown = yield* topics("apply", options)
      assert.match(shown.output, /^ {2}retention\.ms 5000 → -1$/m)
      assert.deepInclude(yield* settingsOf(`${name}.sights`), {
        "retention.ms": "-1",
        "local.retention.ms": "60000",
        "max.message.bytes": "2000000",
        "segment.ms": "60000"
      })
      assert.strictEqual((yield* topics("check", options)).code, 0)
    }))

  test("partitions are added only with --allow-repartition, and the plan says what that breaks", () =>
    Effect.gen(function* () {
      const name = fresh()
      yield* topics("apply", { name })
      const more = { name, partitions: 5, retention: "1 hour" }
      const refused = yield* reported("apply", more)
      assert.deepInclude(refused, { code: 1, differs: true })
      assert.strictEqual(refused.sights.action, "refused")
      assert.match(
        refused.errors,
        /refused, so no topic was changed: .*would break the order of its keys.*\ntry: --allow-repartition/
      )
      assert.strictEqual(yield* partitionsOf(`${name}.sights`), 3)
      assert.strictEqual((yield* settingsOf(`${name}.sights`))["retention.ms"], "-1")
      const planned = yield* reported("plan", more, "--allow-repartition")
      assert.deepInclude(planned.sights, { action: "change", partitions: { from: 3, to: 5 } })
      assert.match(
        planned.sights.notes.join(),
        /no longer in one order.*Every projection over the topic must start over/
      )
      assert.strictEqual(yield* partitionsOf(`${name}.sights`), 3)
      const applied = yield* reported("apply", more, "--allow-repartition")
      assert.strictEqual(applied.code, 0)
      assert.strictEqual(yield* partitionsOf(`${name}.sights`), 5)
      assert.strictEqual((yield* settingsOf(`${name}.sights`))["retention.ms"], "3600000")
      const fewer = yield* reported("apply", { name, partitions: 4 }, "--allow-repartition")
      assert.deepInclude(fewer, { code: 1 })
      assert.strictEqual(yield* partitionsOf(`${name}.sights`), 5)
    }))

  test("another cleanup policy is refused even with --allow-repartition, and start refuses to run on it", () =>
    Effect.gen(function* () {
      const name = fresh()
      yield* asOperator(brokers, (admin) =>
        admin.createTopics({
          topics: [
            {
              topic: `${name}.sights`,
              numPartitions: 3,
              configEntries: [{ name: "cleanup.policy", value: "compact" }]
            },
            { topic: `${name}.people`, numPartitions: 2, configEntries: [{ name: "cleanup.policy", value: "compact" }] }
          ]
        })
      )
      const refused = yield* reported("apply", { name }, "--allow-repartition")
      assert.strictEqual(refused.code, 1)
      assert.match(
        refused.errors,
        /the topic is compacted but is declared as not compacted; give the new topic another name/
      )
      const environment = { MILLRACE_KAFKA_BROKERS: brokers.join(), TEST_TOPICS: JSON.stringify({ name }) }
      const started = yield* Cli.run(environment, "start", ...config, "--port", "0", "--data", join(directory, name))
      assert.strictEqual(started.code, 1)
      assert.match(started.errors, /differs from its declaration: the topic is compacted.*\ntry: millrace topics plan/)
    }))

  test("check reports another number of replicas, which apply cannot change, and apply reports what the brokers refuse", () =>
    Effect.gen(function* () {
      const name = fresh()
      yield* topics("apply", { name })
      const copies = yield* reported("check", { name, kafka: { replication: 3 } })
      assert.strictEqual(copies.code, 3)
      assert.match(
        copies.sights.notes.join(),
        /the topic has 1 replica but 3 are declared; .*kafka-reassign-partitions/
      )
      assert.strictEqual((yield* topics("apply", { name, kafka: { replication: 3 } })).code, 0)
      const many = yield* topics("apply", { name: fresh(), kafka: { replication: 3 } })
      assert.strictEqual(many.code, 1)
      assert.match(many.errors, /^millrace: log: declare on .* failed: there are fewer brokers than replicas/m)
      const tiered = { settings: { "remote.storage.enable": "true" } }
      for (const options of [
        { name, kafka: tiered },
        { name: fresh(), kafka: tiered }
      ]) {
        const { code, errors } = yield* topics("apply", options)
        assert.strictEqual(code, 1)
        assert.match(
          errors,
          /^millrace: log: declare on .*sights failed: .*tiered storage must be enabled on the brokers/m
        )
      }
    }))
})

describe("millrace topics on the embedded log", () => {
  test("apply creates missing topics, changes retention, and refuses another number of partitions", () =>
    Effect.gen(function* () {
      const run = (doing: string, options: object, ...more: ReadonlyArray<string>) =>
        Cli.run(
          { TEST_TOPICS: JSON.stringify(options) },
          "topics",
          doing,
          ...config,
          "--data",
          join(directory, "own"),
          ...more
        )
      const early = yield* run("check", { name: "own" })
      assert.strictEqual(early.code, 1)
      assert.include(early.errors, "there is no database")
      const first = yield* run("apply", { name: "own" })
      assert.strictEqual(first.code, 0, first.errors)
      assert.match(first.output, /^Topics on PostgreSQL\nown\.sights +3 partitions: create$/m)
      const ready = yield* run("check", { name: "own" })
      assert.strictEqual(ready.code, 0, ready.output)
      const all = yield* run("plan", { name: "own", to: ["pulsar"] })
      assert.match(all.output, /^own\.greetings +3 partitions: create$/m)
      const kept = yield* run("apply", { name: "own", retention: "1 hour" })
      assert.match(kept.output, /^ {2}retention\.ms for ever → 3600000$/m)
      const more = yield* run("apply", { name: "own", partitions: 5 }, "--allow-repartition")
      assert.strictEqual(more.code, 1)
      assert.match(more.errors, /would break the order of its keys/)
    }))
})

describe("a topic's options for Kafka", () => {
  const sights = (kafka: object) => () => Topic.records("x", { value: {}, key: (() => "") as never, kafka })
  it("are refused with the option that makes no sense", () => {
    assert.throws(sights({ replication: 0 }), "topic x: kafka.replication is 0; it must be a whole number, at least 1")
    assert.throws(
      sights({ replication: 2, minInSyncReplicas: 3 }),
      "kafka.minInSyncReplicas is 3, more than kafka.replication (2); lower one or raise the other"
    )
    assert.throws(
      sights({ settings: { "retention.ms": "1" } }),
      "kafka.settings has retention.ms; remove it and use `retention` instead"
    )
    assert.doesNotThrow(sights({ replication: 3, minInSyncReplicas: 2 }))
  })
})
