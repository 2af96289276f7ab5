// Admin requests: creating, describing and changing topics, and asking for the cluster. Each call of `withAdmin` has a connection of its own.
import { failureOf } from "./errors.ts"
import { clientOf, KafkaJs } from "./kafkajs.ts"
import type { KafkaOptions } from "./options.ts"

/** Settings of a topic by their names on Kafka. */
export type TopicSettings = Readonly<Record<string, string>>
/** The settings of a topic on the cluster. */
export interface DescribedTopic {
  /** Every setting, defaults of the brokers included. */
  readonly all: ReadonlyMap<string, string>
  /** The settings that were made for this topic. */
  readonly own: TopicSettings
}
/** A topic to create. */
export interface CreatedTopic {
  readonly name: string
  readonly partitions: number
  /** The number of copies; undefined for the broker's default. */
  readonly replication: number | undefined
  readonly settings: TopicSettings
}
/** Admin requests over one connection. Each rejects with `KafkaFailure`. */
export interface KafkaAdmin {
  readonly clusterId: () => Promise<string>
  readonly topicNames: () => Promise<ReadonlyArray<string>>
  readonly describe: (topics: ReadonlyArray<string>) => Promise<ReadonlyMap<string, DescribedTopic>>
  /** Does nothing if the topic exists. It may take a moment until every partition has a leader. */
  readonly create: (topic: CreatedTopic) => Promise<void>
  /** Replaces all settings that were made for a topic. */
  readonly replaceSettings: (topic: string, settings: TopicSettings) => Promise<void>
  /** Adds partitions up to `count`. */
  readonly addPartitions: (topic: string, count: number) => Promise<void>
}

interface ConfigEntry {
  readonly configName: string
  readonly configValue: string
  readonly configSource: number
}
const madeForTopic = 1
const describedOf = (entries: ReadonlyArray<ConfigEntry>): DescribedTopic => {
  const pairs = (some: ReadonlyArray<ConfigEntry>) =>
    some.map(({ configName, configValue }) => [configName, configValue] as const)
  const own = Object.fromEntries(pairs(entries.filter(({ configSource }) => configSource === madeForTopic)))
  return { all: new Map(pairs(entries)), own }
}
const entriesOf = (settings: TopicSettings) => Object.entries(settings).map(([name, value]) => ({ name, value }))
const type = KafkaJs.ConfigResourceTypes.TOPIC

const translated = <A>(request: Promise<A>): Promise<A> =>
  request.catch((cause: unknown) => {
    throw failureOf(cause)
  })

const adminOf = (admin: KafkaJs.Admin): KafkaAdmin => ({
  clusterId: async () => (await translated(admin.describeCluster())).clusterId,
  topicNames: () => translated(admin.listTopics()),
  describe: async (topics) => {
    if (topics.length === 0) return new Map()
    const resources = topics.map((name) => ({ type, name }))
    const described = await translated(admin.describeConfigs({ includeSynonyms: false, resources }))
    return new Map(
      described.resources.map(({ configEntries, resourceName }) => [
        resourceName,
        describedOf(configEntries as unknown as ReadonlyArray<ConfigEntry>)
      ])
    )
  },
  create: async ({ name, partitions, replication, settings }) => {
    const topic = {
      topic: name,
      numPartitions: partitions,
      replicationFactor: replication ?? -1,
      configEntries: entriesOf(settings)
    }
    await admin.createTopics({ topics: [topic], waitForLeaders: false }).catch((cause: unknown) => {
      // kafkajs lists what went wrong in an aggregate error
      throw failureOf((cause as { readonly errors?: ReadonlyArray<unknown> }).errors?.[0] ?? cause)
    })
  },
  replaceSettings: async (topic, settings) => {
    const resources = [{ type, name: topic, configEntries: entriesOf(settings) }]
    await translated(admin.alterConfigs({ validateOnly: false, resources }))
  },
  addPartitions: async (topic, count) => {
    await translated(admin.createPartitions({ topicPartitions: [{ topic, count }] }))
  }
})

/** Runs admin requests over a connection of their own, which is closed afterwards. Rejects with `KafkaFailure`, or as `run` does. */
export const withAdmin = async <A>(options: KafkaOptions, run: (admin: KafkaAdmin) => Promise<A>): Promise<A> => {
  const admin = clientOf(options).admin()
  await translated(admin.connect())
  try {
    return await run(adminOf(admin))
  } finally {
    await admin.disconnect().catch(() => undefined)
  }
}
