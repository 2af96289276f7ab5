// Makes the topics that an application declares, and holds the others to what was declared. It reads and writes no record.
import KafkaJs, { type Admin } from "kafkajs"
import { LogError, type TopicSpec, UnknownTopic } from "../log.ts"
import { conflict, invalidSpec } from "../log-rules.ts"
import { type Client, retrying } from "./client.ts"
import { clientOf } from "./driver.ts"
import type { Options } from "./options.ts"

/** What Millrace's own topics take in a batch, so that a call's records become visible at once. */
const maxMessageBytes = String(8 << 20)

/** Settings that follow from a declaration. Without a retention records are kept for ever. */
export const settingsOf = ({ compacted, retentionMs }: TopicSpec): Readonly<Record<string, string>> => ({
  "cleanup.policy": compacted ? (retentionMs === undefined ? "compact" : "compact,delete") : "delete",
  "retention.ms": retentionMs === undefined ? "-1" : String(Math.ceil(retentionMs))
})
const created = (options: Options, spec: TopicSpec): Readonly<Record<string, string>> => ({
  // retention goes by the time of a record, and an event of ten years ago came today
  "message.timestamp.type": "LogAppendTime",
  "max.message.bytes": maxMessageBytes,
  ...(options.minInSyncReplicas !== undefined && { "min.insync.replicas": String(options.minInSyncReplicas) }),
  ...options.topicSettings,
  ...settingsOf(spec)
})
const entriesOf = (settings: Readonly<Record<string, string>>) =>
  Object.entries(settings).map(([name, value]) => ({ name, value }))

const refuse = (topic: string, reason: string) =>
  new LogError({ operation: "declare", topic, retryable: false, reason })

const create = async (admin: Admin, options: Options, spec: TopicSpec) => {
  try {
    const { name: topic, partitions: numPartitions } = spec
    // false where another process made it meanwhile, which the check that follows sees
    await admin.createTopics({
      topics: [
        {
          topic,
          numPartitions,
          replicationFactor: options.replicationFactor ?? -1,
          configEntries: entriesOf(created(options, spec))
        }
      ],
      waitForLeaders: false
    })
  } catch (cause) {
    // what went wrong is in the list of an aggregate
    throw (cause as { readonly errors?: ReadonlyArray<unknown> }).errors?.[0] ?? cause
  }
}

interface Entry {
  readonly configName: string
  readonly configValue: string
  readonly configSource: number
}
const dynamicTopic = 1

/** Settings of a topic: all, and those that were set for this topic. */
const describe = async (admin: Admin, name: string) => {
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: KafkaJs.ConfigResourceTypes.TOPIC, name }]
  })
  const entries = (resources[0]?.configEntries ?? []) as unknown as ReadonlyArray<Entry>
  const all = new Map(entries.map(({ configName, configValue }) => [configName, configValue]))
  const set = entries.filter(({ configSource }) => configSource === dynamicTopic)
  return { all, set: Object.fromEntries(set.map(({ configName, configValue }) => [configName, configValue])) }
}

const sorted = (policy: string | undefined) => (policy ?? "").split(",").toSorted().join()

const hold = async (admin: Admin, spec: TopicSpec, partitions: number) => {
  const { all, set } = await describe(admin, spec.name)
  const policy = all.get("cleanup.policy") ?? "delete"
  const reason = conflict({ partitions, compacted: policy.includes("compact") }, spec)
  if (reason !== undefined) throw refuse(spec.name, reason)
  const settings = settingsOf(spec)
  const same =
    sorted(policy) === sorted(settings["cleanup.policy"]) && all.get("retention.ms") === settings["retention.ms"]
  if (same) return
  // this request replaces all settings of the topic, so the others are named again
  const configEntries = entriesOf({ ...set, ...settings })
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: KafkaJs.ConfigResourceTypes.TOPIC, name: spec.name, configEntries }]
  })
}

/** Waits until every partition has a leader that this process knows. */
const settled = (client: Client, name: string) =>
  retrying(client, name, client.requestMs, async () => {
    client.forget(name)
    try {
      const { leaders } = await client.topic(name)
      for (const partition of leaders.keys()) await client.leader(name, partition)
      return leaders.length
    } catch (cause) {
      // just made: not every broker has heard of it
      throw cause instanceof UnknownTopic
        ? Object.assign(new Error(cause.message), { type: "UNKNOWN_TOPIC_OR_PARTITION" })
        : cause
    }
  })

/** Makes what is missing, one topic after another, and refuses what would break the order of keys. Rejects with the port's errors or the driver's. */
export const declare = async (client: Client, specs: ReadonlyArray<TopicSpec>): Promise<void> => {
  for (const spec of specs) {
    const reason = invalidSpec(spec)
    if (reason !== undefined) throw refuse(spec.name, reason)
  }
  const admin = clientOf(client.options).admin()
  await admin.connect()
  try {
    for (const spec of specs) {
      client.forget(spec.name)
      const there = await client.topic(spec.name).catch((cause: unknown) => {
        if (cause instanceof UnknownTopic) return undefined
        throw cause
      })
      if (there === undefined) await create(admin, client.options, spec)
      await hold(admin, spec, await settled(client, spec.name))
    }
  } finally {
    await admin.disconnect().catch(() => undefined)
  }
}
