// Asks a broker for the cluster and one topic: kafkajs knows no topic ids, and fails for all partitions where one has no leader.
import { type Broker, errorFromCode, exchange } from "./kafkajs.ts"
import { Reader, Writer } from "./wire.ts"

/** A broker by its number. */
export interface Node {
  readonly nodeId: number
  readonly host: string
  readonly port: number
}
/** What a broker knows of a topic. */
export interface Known {
  readonly brokers: ReadonlyArray<Node>
  /** 32 hex digits, others for each topic that was ever made; undefined where the brokers are too old to tell. */
  readonly id: string | undefined
  /** The leading broker's number, by partition; -1 while there is none. */
  readonly leaders: ReadonlyArray<number>
  /** Copies that the first partition has. */
  readonly replication: number
}

const apiKey = 3
/** The first with ids that every broker since 3.0 speaks. */
const apiVersion = 12

const requestOf = (topic: string): Buffer => {
  const writer = new Writer()
  // of the header
  writer.tags()
  writer.compactArray([topic], (name) => writer.raw(Buffer.alloc(16)).compactText(name).tags())
  // makes no topic, and asks for no rights
  return writer.i8(0).i8(0).tags().bytes()
}

interface Answer extends Known {
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
      // an error means that there is no leader, which its number tells too
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
/** What a broker without ids answers, in this one's form. */
const older = async (broker: Broker, topic: string): Promise<Known> => {
  const { brokers, topicMetadata } = await broker.metadata([topic])
  const leaders: Array<number> = []
  const partitions = topicMetadata.find((one) => one.topic === topic)?.partitionMetadata ?? []
  for (const { leader, partitionId } of partitions) leaders[partitionId] = leader
  return { brokers, id: undefined, leaders, replication: partitions[0]?.replicas.length ?? 0 }
}

/** Asks for one topic. Rejects with kafkajs's error where there is none, or it may not be seen. */
export const metadata = async (broker: Broker, topic: string): Promise<Known> => {
  if ((broker.versions?.[apiKey]?.maxVersion ?? 0) < apiVersion) return older(broker, topic)
  const api = [apiKey, apiVersion, "Metadata"] as const
  const { errorCode, ...known } = await exchange<Answer>(broker, api, requestOf(topic), answerOf)
  if (errorCode !== 0) throw errorFromCode(errorCode)
  return known
}
