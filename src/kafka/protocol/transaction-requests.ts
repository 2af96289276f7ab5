// The requests of a transactional producer, and their answers. A partition that refuses its part rejects with a `KafkaFailure` that names it.
import { failureOfNumber, type TopicPartition } from "./errors.ts"
import { type Broker, exchange } from "./kafkajs.ts"
import * as Plain from "./produce-request.ts"
import { Reader, Writer } from "./wire.ts"

/** The newest owner of a transactional id, as the broker numbers it. */
export interface ProducerIdentity {
  readonly id: bigint
  readonly epoch: number
}
/** An offset that a transaction commits for a consumer group, with a text. */
export interface GroupOffset {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly metadata: string
}
const send = async <A>(
  broker: Broker,
  api: readonly [number, number, string],
  bytes: Buffer,
  requestMs: number,
  read: (answer: Reader) => A
): Promise<A> => {
  const { value } = await exchange(broker, api, bytes, (raw) => ({ value: read(new Reader(raw)) }), requestMs)
  return value
}
const check = (number: number) => {
  if (number !== 0) throw failureOfNumber(number)
}
type PartitionAnswer = Omit<Plain.Appended, "base">
/** Kafka's number for a partition that was skipped because another one was refused. */
const notAttempted = 55
/** Throws for the first partition that was itself refused. While a transaction is being ended all are refused, again and again. */
const checkPartitions = (answers: ReadonlyArray<PartitionAnswer>) => {
  const refused = answers.filter(({ errorCode }) => errorCode !== 0)
  const first = refused.find(({ errorCode }) => errorCode !== notAttempted) ?? refused[0]
  if (first !== undefined) throw failureOfNumber(first.errorCode, { topic: first.topic, partition: first.partition })
}
const byTopic = <A extends { readonly topic: string }>(list: ReadonlyArray<A>) => [
  ...Map.groupBy(list, ({ topic }) => topic)
]
const readPartitions = (answer: Reader): ReadonlyArray<PartitionAnswer> => {
  answer.skip(4)
  const topics = answer.array(() => {
    const topic = answer.text()
    return answer.array(() => ({ topic, partition: answer.i32(), errorCode: answer.i16() }))
  })
  return topics.flat()
}
const identified = (transactionalId: string, { epoch, id }: ProducerIdentity) =>
  new Writer(256).text(transactionalId).i64(id).i16(epoch)

/** Takes a transactional id over: ends the open transaction of its previous owner, and fences that owner. */
export const initProducerId = (
  broker: Broker,
  transactionalId: string,
  transactionMs: number,
  requestMs: number
): Promise<ProducerIdentity> =>
  send(
    broker,
    [22, 1, "InitProducerId"],
    new Writer(64).text(transactionalId).i32(transactionMs).bytes(),
    requestMs,
    (answer) => {
      answer.skip(4)
      check(answer.i16())
      return { id: answer.i64(), epoch: answer.i16() }
    }
  )

/** Adds partitions to the transaction; the first ones start it. */
export const addPartitions = async (
  broker: Broker,
  transactionalId: string,
  identity: ProducerIdentity,
  partitions: ReadonlyArray<TopicPartition>,
  requestMs: number
): Promise<void> => {
  const request = identified(transactionalId, identity)
  request.array(byTopic(partitions), ([topic, of]) =>
    request.text(topic).array(of, ({ partition }) => request.i32(partition))
  )
  checkPartitions(await send(broker, [24, 1, "AddPartitionsToTxn"], request.bytes(), requestMs, readPartitions))
}

/** Adds a consumer group whose offsets the transaction will commit. */
export const addOffsets = (
  broker: Broker,
  transactionalId: string,
  identity: ProducerIdentity,
  group: string,
  requestMs: number
): Promise<void> =>
  send(
    broker,
    [25, 1, "AddOffsetsToTxn"],
    identified(transactionalId, identity).text(group).bytes(),
    requestMs,
    (answer) => {
      answer.skip(4)
      check(answer.i16())
    }
  )

/** Sends a group's coordinator offsets, which take effect once the transaction is committed. */
export const commitOffsets = async (
  broker: Broker,
  transactionalId: string,
  { epoch, id }: ProducerIdentity,
  group: string,
  offsets: ReadonlyArray<GroupOffset>,
  requestMs: number
): Promise<void> => {
  const request = new Writer().text(transactionalId).text(group).i64(id).i16(epoch)
  request.array(byTopic(offsets), ([topic, of]) =>
    request
      .text(topic)
      .array(of, ({ metadata, offset, partition }) => request.i32(partition).i64(offset).text(metadata))
  )
  checkPartitions(await send(broker, [28, 1, "TxnOffsetCommit"], request.bytes(), requestMs, readPartitions))
}

/** Commits or aborts. When it resolves the outcome is decided; readers see it some milliseconds later. */
export const endTransaction = (
  broker: Broker,
  transactionalId: string,
  identity: ProducerIdentity,
  commit: boolean,
  requestMs: number
): Promise<void> =>
  send(
    broker,
    [26, 1, "EndTxn"],
    identified(transactionalId, identity)
      .i8(commit ? 1 : 0)
      .bytes(),
    requestMs,
    (answer) => {
      answer.skip(4)
      check(answer.i16())
    }
  )

/** Appends batches, at most one to a partition, as part of the transaction. */
export const produce = async (
  broker: Broker,
  transactionalId: string,
  batches: ReadonlyArray<Plain.ProducedBatch>,
  requestMs: number
): Promise<void> => {
  const timeouts = { copiesMs: requestMs, answerMs: requestMs }
  checkPartitions(await Plain.produce(broker, transactionalId, batches, timeouts))
}

/**
 * A group's committed offsets; partitions without one are left out. Rejects with the kind `busy` while a transaction with one of them is
 * still being ended (version 7: older ones cannot report that).
 */
export const fetchOffsets = async (
  broker: Broker,
  group: string,
  partitions: ReadonlyArray<TopicPartition>,
  requestMs: number
): Promise<ReadonlyArray<GroupOffset>> => {
  // the header of a flexible version ends with tagged fields, none
  const request = new Writer().tags().compactText(group)
  request.compactArray(byTopic(partitions), ([topic, of]) =>
    request
      .compactText(topic)
      .compactArray(of, ({ partition }) => request.i32(partition))
      .tags()
  )
  // an offset of a transaction that is being ended is an error
  request.i8(1).tags()
  return send(broker, [9, 7, "OffsetFetch"], request.bytes(), requestMs, (answer) => {
    answer.tags()
    answer.skip(4)
    const topics = answer.compactArray(() => {
      const topic = answer.compactText()
      const of = answer.compactArray((): GroupOffset => {
        const partition = answer.i32()
        const offset = Number(answer.i64())
        answer.skip(4)
        const metadata = answer.compactText()
        const code = answer.i16()
        if (code !== 0) throw failureOfNumber(code, { topic, partition })
        answer.tags()
        return { topic, partition, offset, metadata }
      })
      answer.tags()
      return of
    })
    check(answer.i16())
    return topics.flat().filter(({ offset }) => offset >= 0)
  })
}
