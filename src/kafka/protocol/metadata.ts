// Asks a broker for the cluster and one topic. kafkajs's own request has no topic ids, and fails if any partition has no leader.
import { failureOfNumber } from "./errors.ts"
import { type Broker, exchange } from "./kafkajs.ts"
import { Reader, Writer } from "./wire.ts"

/** A broker's number and address. */
export interface BrokerAddress {
  readonly nodeId: number
  readonly host: string
  readonly port: number
}
/** What a broker knows of the cluster and a topic. */
export interface TopicMetadata {
  readonly brokers: ReadonlyArray<BrokerAddress>
  /** 32 hex digits, different for every topic that was ever created; undefined if the brokers are too old to have ids. */
  readonly id: string | undefined
  /** The number of the leading broker, by partition; -1 while a partition has no leader. */
  readonly leaders: ReadonlyArray<number>
  /** Copies of the first partition. */
  readonly replication: number
}

const apiKey = 3
/** The first version with topic ids; every broker since 3.0 supports it. */
const apiVersion = 12

const requestOf = (topic: string): Buffer => {
  const writer = new Writer()
  // the request's header ends with tagged fields
  writer.tags()
  writer.compactArray([topic], (name) => writer.raw(Buffer.alloc(16)).compactText(name).tags())
  // creates no topic, and asks for no authorizations
  return writer.i8(0).i8(0).tags().bytes()
}

interface Answer extends TopicMetadata {
  readonly errorCode: number
  readonly clientSideThrottleTime: number
}
const answerOf = (raw: Buffer): Answer => {
  const reader = new Reader(raw)
  reader.tags()
  const clientSideThrottleTime = reader.i32()
  const brokers = reader.compactArray(() => {
    const node = { nodeId: reader.i32(), host: reader.compactText(), port: reader.i32() }
    reader.compactText()
    reader.tags()
    return node
  })
  reader.compactText()
  reader.i32()
  const leaders: Array<number> = []
  let replication = 0
  const [topic] = reader.compactArray(() => {
    const errorCode = reader.i16()
    reader.compactText()
    const id = reader.bytes(16).toString("hex")
    reader.skip(1)
    reader.compactArray(() => {
      // an error means that there is no leader, and then the leader's number is -1
      reader.i16()
      const partition = reader.i32()
      leaders[partition] = reader.i32()
      reader.i32()
      const replicas = reader.compactArray(() => reader.i32())
      if (partition === 0) replication = replicas.length
      reader.compactArray(() => reader.i32())
      reader.compactArray(() => reader.i32())
      reader.tags()
    })
    reader.i32()
    reader.tags()
    return { errorCode, id }
  })
  return { errorCode: topic?.errorCode ?? 3, clientSideThrottleTime, brokers, id: topic?.id, leaders, replication }
}
/** The answer of a broker without topic ids, in the same form. */
const olderAnswer = async (broker: Broker, topic: string): Promise<TopicMetadata> => {
  const { brokers, topicMetadata } = await broker.metadata([topic])
  const leaders: Array<number> = []
  const partitions = topicMetadata.find((one) => one.topic === topic)?.partitionMetadata ?? []
  for (const { leader, partitionId } of partitions) leaders[partitionId] = leader
  return { brokers, id: undefined, leaders, replication: partitions[0]?.replicas.length ?? 0 }
}

/** Asks for one topic. Rejects if it does not exist or the user may not see it. */
export const metadata = async (broker: Broker, topic: string): Promise<TopicMetadata> => {
  if ((broker.versions?.[apiKey]?.maxVersion ?? 0) < apiVersion) return olderAnswer(broker, topic)
  const api = [apiKey, apiVersion, "Metadata"] as const
  const { errorCode, ...known } = await exchange<Answer>(broker, api, requestOf(topic), answerOf)
  if (errorCode !== 0) throw failureOfNumber(errorCode)
  return known
}
