// The topics of a cluster: what is to be done so that they are what an application declares, and doing it. It reads and writes no record.
import * as Effect from "effect/Effect"
import KafkaJs, { type Admin } from "kafkajs"
import { type Log, LogError, type TopicSpec, UnknownTopic } from "../../log/log.ts"
import { specProblem } from "../../log/rules.ts"
import {
  planChange,
  planCreation,
  type PlanOptions,
  type SettingChange,
  type TopicPlan,
  type TopicAdmin
} from "../../log/topic-plan.ts"
import { type Client, retrying, type Topic } from "../protocol/client.ts"
import { clientOf } from "../protocol/kafkajs.ts"
import { logError, typeOf } from "../protocol/errors.ts"
import type { Options } from "../protocol/options.ts"

/** What Millrace's own topics take in a batch, so that a call's records become visible at once. */
const maxMessageBytes = String(8 << 20)
type Settings = Readonly<Record<string, string>>

/** What a topic is held to: it follows from the declaration. Without a retention records are kept for ever. */
const declared = (options: Options, { compacted, kafka, retentionMs }: TopicSpec): Settings => {
  const minInSyncReplicas = kafka?.minInSyncReplicas ?? options.minInSyncReplicas
  return {
    ...kafka?.settings,
    ...(minInSyncReplicas !== undefined && { "min.insync.replicas": String(minInSyncReplicas) }),
    "cleanup.policy": compacted ? (retentionMs === undefined ? "compact" : "compact,delete") : "delete",
    "retention.ms": retentionMs === undefined ? "-1" : String(Math.ceil(retentionMs))
  }
}
/** What it is besides, unless somebody said otherwise for this topic. */
const usual = (options: Options): Settings => ({
  // retention goes by the time of a record, and an event of ten years ago came today
  "message.timestamp.type": "LogAppendTime",
  "max.message.bytes": maxMessageBytes,
  ...options.topicSettings
})
const replicationOf = (options: Options, { kafka }: TopicSpec) => kafka?.replication ?? options.replicationFactor

const entriesOf = (settings: Settings) => Object.entries(settings).map(([name, value]) => ({ name, value }))
const refuse = (topic: string, reason: string) =>
  new LogError({ operation: "declare", topic, retryable: false, reason })

interface Entry {
  readonly configName: string
  readonly configValue: string
  readonly configSource: number
}
const dynamicTopic = 1
/** A topic's settings: all, and those that were set for this topic. */
interface Described {
  readonly all: ReadonlyMap<string, string>
  readonly set: Settings
}
const describe = async (admin: Admin, names: ReadonlyArray<string>): Promise<ReadonlyMap<string, Described>> => {
  if (names.length === 0) return new Map()
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: names.map((name) => ({ type: KafkaJs.ConfigResourceTypes.TOPIC, name }))
  })
  return new Map(
    resources.map(({ configEntries, resourceName }) => {
      const entries = configEntries as unknown as ReadonlyArray<Entry>
      const pairs = (some: ReadonlyArray<Entry>) =>
        some.map(({ configName, configValue }) => [configName, configValue] as const)
      const set = Object.fromEntries(pairs(entries.filter(({ configSource }) => configSource === dynamicTopic)))
      return [resourceName, { all: new Map(pairs(entries)), set }]
    })
  )
}

const policies = (policy: string | undefined) => (policy ?? "").split(",").toSorted().join()
const same = (name: string, one: string | undefined, other: string) =>
  name === "cleanup.policy" ? policies(one) === policies(other) : one === other

const changes = (options: Options, spec: TopicSpec, { all, set }: Described): ReadonlyArray<SettingChange> => {
  const held = declared(options, spec)
  const besides = Object.entries(usual(options)).filter(([name]) => !(name in held) && !(name in set))
  return [...Object.entries(held), ...besides]
    .map(([name, to]) => ({ name, from: all.get(name), to }))
    .filter(({ from, name, to }) => !same(name, from, to))
}

/** The topic as the cluster has it now; undefined: it has none. */
const look = (client: Client, name: string): Promise<Topic | undefined> => {
  client.forget(name)
  return client.topic(name).catch((cause: unknown) => {
    if (cause instanceof UnknownTopic) return undefined
    throw cause
  })
}

const planOf = async (client: Client, admin: Admin, specs: ReadonlyArray<TopicSpec>, options: PlanOptions) => {
  for (const spec of specs) {
    const reason = specProblem(spec)
    if (reason !== undefined) throw refuse(spec.name, reason)
  }
  const found = await Promise.all(specs.map(({ name }) => look(client, name)))
  const described = await describe(
    admin,
    found.flatMap((topic) => (topic === undefined ? [] : [topic.name]))
  )
  return specs.map((spec, i): TopicPlan => {
    const topic = found[i]
    const replication = replicationOf(client.options, spec)
    const settings = described.get(spec.name)
    if (topic === undefined || settings === undefined)
      return planCreation(spec, { ...usual(client.options), ...declared(client.options, spec) }, replication)
    const there = {
      partitions: topic.leaders.length,
      compacted: settings.all.get("cleanup.policy")?.includes("compact") === true,
      replication: topic.replication,
      settings: changes(client.options, spec, settings)
    }
    return planChange(spec, there, replication, options)
  })
}

/** The brokers' word on a setting does not come through; which ones there are helps. */
const settingsRefused = (topic: string, settings: Settings, cause: unknown): unknown => {
  if (typeOf(cause) !== "INVALID_CONFIG") return cause
  const said = Object.entries(settings).map(([name, value]) => `${name}=${value}`)
  const advice =
    settings["remote.storage.enable"] === "true"
      ? "tiered storage must be enabled on the brokers (remote.log.storage.system.enable), and is not for compacted topics"
      : "correct `kafka.settings` of the topic"
  return refuse(topic, `the brokers refuse a setting among ${said.join(", ")}: ${advice}`)
}

const create = async (client: Client, admin: Admin, spec: TopicSpec) => {
  const settings = { ...usual(client.options), ...declared(client.options, spec) }
  try {
    // false where another process made it meanwhile, which whoever plans next sees
    await admin.createTopics({
      topics: [
        {
          topic: spec.name,
          numPartitions: spec.partitions,
          replicationFactor: replicationOf(client.options, spec) ?? -1,
          configEntries: entriesOf(settings)
        }
      ],
      waitForLeaders: false
    })
  } catch (cause) {
    // what went wrong is in the list of an aggregate
    const first = (cause as { readonly errors?: ReadonlyArray<unknown> }).errors?.[0] ?? cause
    throw settingsRefused(spec.name, settings, first)
  }
  await settled(client, spec.name)
}
const change = async (client: Client, admin: Admin, spec: TopicSpec, plan: TopicPlan) => {
  if (plan.settings.length > 0) {
    const { set = {} } = (await describe(admin, [spec.name])).get(spec.name) ?? {}
    // this request replaces all settings of the topic, so the others are named again
    const settings = { ...set, ...Object.fromEntries(plan.settings.map(({ name, to }) => [name, to])) }
    const configEntries = entriesOf(settings)
    await admin
      .alterConfigs({
        validateOnly: false,
        resources: [{ type: KafkaJs.ConfigResourceTypes.TOPIC, name: spec.name, configEntries }]
      })
      .catch((cause: unknown) => {
        throw settingsRefused(spec.name, settings, cause)
      })
  }
  if (plan.partitions.from === plan.partitions.to) return
  await admin.createPartitions({ topicPartitions: [{ topic: spec.name, count: plan.partitions.to }] })
  await settled(client, spec.name, plan.partitions.to)
}

/** Waits until every partition has a leader that this process knows. */
const settled = (client: Client, name: string, partitions = 1) =>
  retrying(client, name, client.requestMs, async () => {
    client.forget(name)
    const again = (reason: string) => Object.assign(new Error(reason), { type: "UNKNOWN_TOPIC_OR_PARTITION" })
    try {
      const { leaders } = await client.topic(name)
      if (leaders.length < partitions) throw again(`there are ${leaders.length} of ${partitions} partitions`)
      for (const partition of leaders.keys()) await client.leader(name, partition)
    } catch (cause) {
      // just made: not every broker has heard of it
      throw cause instanceof UnknownTopic ? again(cause.message) : cause
    }
  })

const withAdmin = async <A>(client: Client, run: (admin: Admin) => Promise<A>): Promise<A> => {
  const admin = clientOf(client.options).admin()
  await admin.connect()
  try {
    return await run(admin)
  } finally {
    await admin.disconnect().catch(() => undefined)
  }
}

const applied = async (
  client: Client,
  admin: Admin,
  specs: ReadonlyArray<TopicSpec>,
  plans: ReadonlyArray<TopicPlan>
) => {
  for (const [i, spec] of specs.entries()) {
    const plan = plans[i]!
    if (plan.action === "create") await create(client, admin, spec)
    if (plan.action === "change") await change(client, admin, spec, plan)
  }
}

/** Makes what is missing and refuses what would break the order of keys. Rejects with the port's errors or the driver's. */
const declare = (client: Client, specs: ReadonlyArray<TopicSpec>) =>
  withAdmin(client, async (admin) => {
    const refused = (plans: ReadonlyArray<TopicPlan>) => {
      const plan = plans.find(({ action }) => action === "refused")
      if (plan !== undefined) throw refuse(plan.topic, plan.notes.join("; "))
      return plans
    }
    const plans = refused(await planOf(client, admin, specs, {}))
    await applied(client, admin, specs, plans)
    // others may have made it at the same time, otherwise
    const made = specs.filter((_, i) => plans[i]!.action === "create")
    const after = refused(await planOf(client, admin, made, {}))
    await applied(client, admin, made, after)
  })

const attempt = <A>(specs: ReadonlyArray<TopicSpec>, run: () => Promise<A>) =>
  Effect.tryPromise({
    try: run,
    catch: (cause) =>
      cause instanceof LogError ? cause : logError("declare", specs.map(({ name }) => name).join(", "))(cause)
  })

/** The topics of a client's cluster, and `Log.declare`. */
export const make = (client: Client): TopicAdmin & Pick<Log["Service"], "declare"> => ({
  plan: (specs, options = {}) =>
    attempt(specs, () => withAdmin(client, (admin) => planOf(client, admin, specs, options))),
  apply: (specs, plans) => attempt(specs, () => withAdmin(client, (admin) => applied(client, admin, specs, plans))),
  declare: (specs) => attempt(specs, () => declare(client, specs))
})
