// Plans and makes the changes that bring a cluster's topics to what an application declares.
import * as Effect from "effect/Effect"
import { type Log, LogError, type TopicSpec } from "../../log/log.ts"
import { specProblem } from "../../log/rules.ts"
import {
  planChange,
  planCreation,
  type PlanOptions,
  type SettingChange,
  type TopicPlan,
  type TopicAdmin
} from "../../log/topic-plan.ts"
import {
  type Client,
  type ClusterTopic,
  type DescribedTopic,
  failureOf,
  type KafkaAdmin,
  KafkaFailure,
  type KafkaOptions,
  retrying,
  type TopicSettings,
  withAdmin
} from "../protocol/protocol.ts"
import { logError } from "./failures.ts"

/** What topics that this adapter creates take in a batch, so that a call's records become visible at once. */
const maxMessageBytes = String(8 << 20)

/** Settings that follow from a topic's declaration, and that it must have. Without a retention records are kept for ever. */
const declared = (options: KafkaOptions, { compacted, kafka, retentionMs }: TopicSpec): TopicSettings => {
  const minInSyncReplicas = kafka?.minInSyncReplicas ?? options.minInSyncReplicas
  return {
    ...kafka?.settings,
    ...(minInSyncReplicas !== undefined && { "min.insync.replicas": String(minInSyncReplicas) }),
    "cleanup.policy": compacted ? (retentionMs === undefined ? "compact" : "compact,delete") : "delete",
    "retention.ms": retentionMs === undefined ? "-1" : String(Math.ceil(retentionMs))
  }
}
/** Further settings of a topic, unless an operator set others for it. */
const usual = (options: KafkaOptions): TopicSettings => ({
  // retention goes by a record's time, and an event of ten years ago may arrive today
  "message.timestamp.type": "LogAppendTime",
  "max.message.bytes": maxMessageBytes,
  ...options.topicSettings
})
const replicationOf = (options: KafkaOptions, { kafka }: TopicSpec) => kafka?.replication ?? options.replicationFactor

const refuse = (topic: string, reason: string) =>
  new LogError({ operation: "declare", topic, retryable: false, reason })

const isUnknown = (cause: unknown) => cause instanceof KafkaFailure && cause.kind === "unknownTopic"

const policies = (policy: string | undefined) => (policy ?? "").split(",").toSorted().join()
const same = (name: string, one: string | undefined, other: string) =>
  name === "cleanup.policy" ? policies(one) === policies(other) : one === other

const changes = (
  options: KafkaOptions,
  spec: TopicSpec,
  { all, own }: DescribedTopic
): ReadonlyArray<SettingChange> => {
  const required = declared(options, spec)
  const besides = Object.entries(usual(options)).filter(([name]) => !(name in required) && !(name in own))
  return [...Object.entries(required), ...besides]
    .map(([name, to]) => ({ name, from: all.get(name), to }))
    .filter(({ from, name, to }) => !same(name, from, to))
}

/** The topic as the cluster has it now; undefined if it does not exist. */
const look = (client: Client, name: string): Promise<ClusterTopic | undefined> => {
  client.forget(name)
  return client.topic(name).catch((cause: unknown) => {
    if (isUnknown(cause)) return undefined
    throw cause
  })
}

const planOf = async (client: Client, admin: KafkaAdmin, specs: ReadonlyArray<TopicSpec>, options: PlanOptions) => {
  for (const spec of specs) {
    const reason = specProblem(spec)
    if (reason !== undefined) throw refuse(spec.name, reason)
  }
  const found = await Promise.all(specs.map(({ name }) => look(client, name)))
  const described = await admin.describe(found.flatMap((topic) => (topic === undefined ? [] : [topic.name])))
  return specs.map((spec, i): TopicPlan => {
    const topic = found[i]
    const replication = replicationOf(client.options, spec)
    const settings = described.get(spec.name)
    if (topic === undefined || settings === undefined)
      return planCreation(spec, { ...usual(client.options), ...declared(client.options, spec) }, replication)
    const there = {
      partitions: topic.leaders.length,
      compacted: settings.all.get("cleanup.policy")?.includes("compact") === true,
      // Kafka does not know it
      isAggregate: spec.isAggregate === true,
      replication: topic.replication,
      settings: changes(client.options, spec, settings)
    }
    return planChange(spec, there, replication, options)
  })
}

/** The error for refused settings. kafkajs drops the broker's explanation, so it lists the settings. */
const settingsRefused = (topic: string, settings: TopicSettings, cause: unknown): unknown => {
  if (failureOf(cause).code !== "INVALID_CONFIG") return cause
  const listed = Object.entries(settings).map(([name, value]) => `${name}=${value}`)
  const advice =
    settings["remote.storage.enable"] === "true"
      ? "tiered storage must be enabled on the brokers (remote.log.storage.system.enable), and compacted topics cannot have it"
      : "correct `kafka.settings` of the topic"
  return refuse(topic, `the brokers refuse a setting among ${listed.join(", ")}: ${advice}`)
}

const create = async (client: Client, admin: KafkaAdmin, spec: TopicSpec) => {
  const { name, partitions } = spec
  const settings = { ...usual(client.options), ...declared(client.options, spec) }
  // if another process creates it at the same time, the next plan shows with what settings
  await admin
    .create({ name, partitions, replication: replicationOf(client.options, spec), settings })
    .catch((cause: unknown) => {
      throw settingsRefused(name, settings, cause)
    })
  await settled(client, name)
}
const change = async (client: Client, admin: KafkaAdmin, spec: TopicSpec, plan: TopicPlan) => {
  if (plan.settings.length > 0) {
    const { own = {} } = (await admin.describe([spec.name])).get(spec.name) ?? {}
    // this request replaces all settings of the topic, so it repeats the others
    const settings = { ...own, ...Object.fromEntries(plan.settings.map(({ name, to }) => [name, to])) }
    await admin.replaceSettings(spec.name, settings).catch((cause: unknown) => {
      throw settingsRefused(spec.name, settings, cause)
    })
  }
  if (plan.partitions.from === plan.partitions.to) return
  await admin.addPartitions(spec.name, plan.partitions.to)
  await settled(client, spec.name, plan.partitions.to)
}

/** Waits until this process knows a leader of every partition. */
const settled = (client: Client, name: string, partitions = 1) =>
  retrying(client, name, client.requestMs, async () => {
    client.forget(name)
    const again = (reason: string) => new KafkaFailure("moved", reason, { code: "UNKNOWN_TOPIC_OR_PARTITION" })
    try {
      const { leaders } = await client.topic(name)
      if (leaders.length < partitions) throw again(`there are ${leaders.length} of ${partitions} partitions`)
      for (const partition of leaders.keys()) await client.leader(name, partition)
    } catch (cause) {
      // just created: not every broker knows it yet
      throw isUnknown(cause) ? again(failureOf(cause).message) : cause
    }
  })

const applied = async (
  client: Client,
  admin: KafkaAdmin,
  specs: ReadonlyArray<TopicSpec>,
  plans: ReadonlyArray<TopicPlan>
) => {
  for (const [i, spec] of specs.entries()) {
    const plan = plans[i]!
    if (plan.action === "create") await create(client, admin, spec)
    if (plan.action === "change") await change(client, admin, spec, plan)
  }
}

/** Creates missing topics, and refuses changes that would break the order of keys. */
const declare = (client: Client, specs: ReadonlyArray<TopicSpec>) =>
  withAdmin(client.options, async (admin) => {
    const refused = (plans: ReadonlyArray<TopicPlan>) => {
      const plan = plans.find(({ action }) => action === "refused")
      if (plan !== undefined) throw refuse(plan.topic, plan.notes.join("; "))
      return plans
    }
    const plans = refused(await planOf(client, admin, specs, {}))
    await applied(client, admin, specs, plans)
    // another process may have created it at the same time, with other settings
    const created = specs.filter((_, i) => plans[i]!.action === "create")
    const after = refused(await planOf(client, admin, created, {}))
    await applied(client, admin, created, after)
  })

const attempt = <A>(specs: ReadonlyArray<TopicSpec>, run: () => Promise<A>) =>
  Effect.tryPromise({
    try: run,
    catch: logError("declare", specs.map(({ name }) => name).join(", "))
  })

/** The topics of a client's cluster, and `declare` of the log's port. */
export const make = (client: Client): TopicAdmin & Pick<Log["Service"], "declare"> => ({
  plan: (specs, options = {}) =>
    attempt(specs, () => withAdmin(client.options, (admin) => planOf(client, admin, specs, options))),
  apply: (specs, plans) =>
    attempt(specs, () => withAdmin(client.options, (admin) => applied(client, admin, specs, plans))),
  declare: (specs) => attempt(specs, () => declare(client, specs))
})
