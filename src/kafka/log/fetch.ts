// Fetches records of one partition once, as a batch of the log, and finds out which positions the partition has.
import { type Batch, OutOfRange, type Position } from "../../log/log.ts"
import { partitionProblem } from "../../log/rules.ts"
import { tellRead } from "../../log/stages.ts"
import { type Broker, type Client, fetch, offsets, type TopicPartition } from "../protocol/protocol.ts"
import { decodeRecords } from "./records.ts"

/** The partition to fetch from. */
export interface FetchSource extends TopicPartition {
  /** The topic's id; undefined if the brokers are too old to have ids. */
  readonly id: string | undefined
  readonly maxBytes: number
}

/** The error for a position that the partition does not have. The partition's end does not count open transactions. */
export const rangeError = async (client: Client, { partition, topic }: TopicPartition, position: Position) => {
  const { end, start } = (await offsets(client, topic, [partition])).get(partition)!
  return new OutOfRange({ topic, partition, position, start, end })
}

/** A topic of the cluster. Rejects with `UnknownTopic` if it has no such partition. */
export const topicWith = async (client: Client, name: string, partition: number) => {
  const topic = await client.topic(name)
  const refused = partitionProblem(name, topic.leaders.length, partition)
  if (refused !== undefined) throw refused
  return topic
}

/** What a fetch returned. */
export interface FetchedBatch {
  /** Without records and with an unchanged position if there was nothing new. It may be larger than `maxBytes`; `cut` divides it. */
  readonly batch: Batch
  /** How many bytes came over the network. */
  readonly wireBytes: number
}
/** Fetches once over a connection, and waits up to `waitMs` for something new. */
export const fetchBatch = async (
  client: Client,
  broker: Broker,
  source: FetchSource,
  position: Position,
  waitMs: number
): Promise<FetchedBatch | OutOfRange> => {
  if (!(Number.isSafeInteger(position) && position >= 0)) return rangeError(client, source, position)
  const answer = await fetch(client, broker, { ...source, position, waitMs })
  if (answer === undefined) return rangeError(client, source, position)
  const came = performance.now()
  const { aborted, bytes, stable } = answer
  const { next, records } = decodeRecords(bytes, source.partition, position, aborted)
  const batch = { records, next, end: Math.max(stable, next) }
  tellRead(source.topic, source.partition, position, batch, came)
  return { batch, wireBytes: bytes.length }
}
