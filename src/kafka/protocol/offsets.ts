// Asks the leaders of partitions for their first and last offsets. Each call asks once; the caller tries again.
import type { Client } from "./client.ts"
import type { TopicPartition } from "./errors.ts"

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
): Promise<ReadonlyMap<number, number>> => {
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
/** The last stable offset of each partition: the end for readers of committed records. */
export const endsOf = (client: Client, topic: string, partitions: ReadonlyArray<number>) =>
  ask(client, topic, partitions, latest)
/** The end of a partition including records of open transactions. */
export const undecidedEnd = async (client: Client, { partition, topic }: TopicPartition): Promise<number> =>
  (await ask(client, topic, [partition], latest, readUncommitted)).get(partition) ?? 0
/** First and last stable offset of each partition. */
export const offsets = async (client: Client, topic: string, partitions: ReadonlyArray<number>) => {
  const [starts, ends] = await Promise.all([
    ask(client, topic, partitions, earliest),
    endsOf(client, topic, partitions)
  ])
  return new Map(
    partitions.map((partition) => [partition, { start: starts.get(partition) ?? 0, end: ends.get(partition) ?? 0 }])
  )
}
