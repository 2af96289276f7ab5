// The request that appends batches, and its answer.
import { type Broker, exchange } from "./kafkajs.ts"
import { Reader, Writer } from "./wire.ts"

/** A stamped batch for a partition. */
export interface ProducedBatch {
  readonly topic: string
  readonly partition: number
  readonly bytes: Buffer
}
/** What a broker answered for one batch. */
export interface Appended {
  readonly topic: string
  readonly partition: number
  /** 0 if the batch was appended. */
  readonly errorCode: number
  /** The offset of the batch's first record. */
  readonly base: number
}
/** How long to wait, in milliseconds: the broker for its replicas, and this client for the broker's answer. */
export interface ProduceTimeouts {
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
 * Appends batches, at most one to a partition, as part of a transaction if there is an id. Rejects with kafkajs's errors; a partition that
 * refuses its batch is an `errorCode` of the answer.
 */
export const produce = async (
  broker: Broker,
  transactionalId: string | null,
  batches: ReadonlyArray<ProducedBatch>,
  { answerMs, copiesMs }: ProduceTimeouts
): Promise<ReadonlyArray<Appended>> => {
  const size = batches.reduce((sum, { bytes }) => sum + bytes.length + 8, 256)
  const writer = new Writer(size).text(transactionalId).i16(everyCopy).i32(copiesMs)
  writer.array([...Map.groupBy(batches, ({ topic }) => topic)], ([topic, of]) =>
    writer.text(topic).array(of, ({ bytes, partition }) => writer.i32(partition).i32(bytes.length).raw(bytes))
  )
  return (await exchange(broker, api, writer.bytes(), answerOf, answerMs)).appended
}
