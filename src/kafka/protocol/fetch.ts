// Fetches records of one partition, and tells where it begins and ends. It waits no longer than told, and tries nothing again.
import { type Batch, OutOfRange, type Position } from "../../log/log.ts"
import { partitionProblem } from "../../log/rules.ts"
import type { Client } from "./client.ts"
import { decode } from "./batch-decode.ts"
import type { Broker } from "./kafkajs.ts"
import { send } from "./fetch-request.ts"

/** A partition. */
export interface Place {
  readonly topic: string
  readonly partition: number
}
/** The partition to read. */
export interface Source extends Place {
  /** The topic's, where the brokers tell. */
  readonly id: string | undefined
  readonly maxBytes: number
}
const readUncommitted = 0
const readCommitted = 1

const earliest = "-2"
const latest = "-1"
const ask = async (
  client: Client,
  topic: string,
  partitions: ReadonlyArray<number>,
  timestamp: string,
  isolationLevel: number = readCommitted
): Promise<ReadonlyMap<number, Position>> => {
  const leaders = await Promise.all(partitions.map((partition) => client.leader(topic, partition)))
  const answers = await Promise.all(
    [...new Set(leaders)].map((node) => {
      const asked = partitions.filter((_, i) => leaders[i] === node).map((partition) => ({ partition, timestamp }))
      return client.use(node, "ask", (broker) =>
        broker.listOffsets({ replicaId: -1, isolationLevel, topics: [{ topic, partitions: asked }] })
      )
    })
  )
  const found = answers.flatMap(({ responses }) => responses.flatMap((one) => one.partitions))
  return new Map(found.map(({ offset, partition }) => [partition, Number(offset)]))
}
/** Ends of partitions, read committed. */
export const endsOf = (client: Client, topic: string, partitions: ReadonlyArray<number>) =>
  ask(client, topic, partitions, latest)
/** Where a partition ends with what transactions under way hold back. */
export const undecidedEnd = async (client: Client, { partition, topic }: Place): Promise<Position> =>
  (await ask(client, topic, [partition], latest, readUncommitted)).get(partition) ?? 0
/** Start and end of partitions, read committed. */
export const offsets = async (client: Client, topic: string, partitions: ReadonlyArray<number>) => {
  const [starts, ends] = await Promise.all([
    ask(client, topic, partitions, earliest),
    endsOf(client, topic, partitions)
  ])
  return new Map(
    partitions.map((partition) => [partition, { start: starts.get(partition) ?? 0, end: ends.get(partition) ?? 0 }])
  )
}

/** The error for a position that is not there; undefined where it is. Positions that transactions under way hold back are there. */
export const rangeError = async (client: Client, { partition, topic }: Place, position: Position) => {
  const { end, start } = (await offsets(client, topic, [partition])).get(partition)!
  return new OutOfRange({ topic, partition, position, start, end })
}

/** Fails where a topic has no such partition. */
export const topicWith = async (client: Client, name: string, partition: number) => {
  const topic = await client.topic(name)
  const refused = partitionProblem(name, topic.leaders.length, partition)
  if (refused !== undefined) throw refused
  return topic
}

/** What a fetch brought. */
export interface Fetched {
  /** No records and the same position: there was nothing. Longer than `maxBytes`: `cut` it. */
  readonly batch: Batch
  /** How many bytes came over the wire. */
  readonly wire: number
}
/** One fetch over a connection, which waits up to `waitMs` for something new. */
export const fetch = async (
  client: Client,
  broker: Broker,
  source: Source,
  position: Position,
  waitMs: number
): Promise<Fetched | OutOfRange> => {
  if (!(Number.isSafeInteger(position) && position >= 0)) return rangeError(client, source, position)
  const timeoutMs = waitMs + client.requestMs
  const answer = await client.within(broker, send(broker, { ...source, position, waitMs }, timeoutMs), timeoutMs)
  if (answer === undefined) return rangeError(client, source, position)
  const { aborted, bytes, stable } = answer
  const { next, records } = decode(bytes, source.partition, position, aborted)
  return { batch: { records, next, end: Math.max(stable, next) }, wire: bytes.length }
}
