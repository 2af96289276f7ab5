// The request that appends batches, and its answer. It keeps nothing and tries nothing again.
import { type Broker, exchange } from "./kafkajs.ts"
import { Reader, Writer } from "./wire.ts"

/** A batch for a partition, stamped. */
export interface Produced {
  readonly topic: string
  readonly partition: number
  readonly bytes: Buffer
}
/** What came of it. */
export interface Appended {
  readonly topic: string
  readonly partition: number
  /** 0: it was appended. */
  readonly errorCode: number
  /** The offset of its first record. */
  readonly base: number
}
/** How long the broker may wait for copies of what it took, and the answer for the broker, in milliseconds. */
export interface Patience {
  readonly copiesMs: number
  readonly answerMs: number
}

const api = [0, 7, "Produce"] as const
const everyCopy = -1

const answerOf = (raw: Buffer) => {
  const reader = new Reader(raw)
  const topics = reader.array(() => {
    const topic = reader.text()
    return reader.array((): Appended => {
      const partition = reader.i32()
      const errorCode = reader.i16()
      const base = Number(reader.i64())
      // the append time and the log's start
      reader.skip(16)
      return { topic, partition, errorCode, base }
    })
  })
  return { appended: topics.flat(), clientSideThrottleTime: reader.i32() }
}

/**
 * Appends batches, one a partition, as part of a transaction where there is an id. Rejects with the driver's errors, but not where single
 * partitions refuse theirs.
 */
export const produce = async (
  broker: Broker,
  transactionalId: string | null,
  batches: ReadonlyArray<Produced>,
  { answerMs, copiesMs }: Patience
): Promise<ReadonlyArray<Appended>> => {
  const size = batches.reduce((sum, { bytes }) => sum + bytes.length + 8, 256)
  const writer = new Writer(size).text(transactionalId).i16(everyCopy).i32(copiesMs)
  writer.array([...Map.groupBy(batches, ({ topic }) => topic)], ([topic, of]) =>
    writer.text(topic).array(of, ({ bytes, partition }) => writer.i32(partition).i32(bytes.length).raw(bytes))
  )
  return (await exchange(broker, api, writer.bytes(), answerOf, answerMs)).appended
}
