// The requests of a transactional producer on the wire, and their answers. It keeps nothing and tries nothing again.
import { type Broker, errorFromCode, exchange } from "./kafkajs.ts"
import * as Plain from "./produce-request.ts"
import { Reader, Writer } from "./wire.ts"

/** Who writes: the newest owner of a transactional id. */
export interface Identity {
  readonly id: bigint
  readonly epoch: number
}
/** An offset that a transaction commits for a group, with a text. */
export interface Offset {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly metadata: string
}
/** A broker's refusal that is about one partition. */
export class PartitionRefused extends Error {
  readonly topic: string
  readonly partition: number
  /** Kafka's name of the error. */
  readonly type: string
  constructor(topic: string, partition: number, code: number) {
    const cause = errorFromCode(code) as Error & { readonly type?: string }
    super(`${topic}/${partition}: ${cause.message}`, { cause })
    this.topic = topic
    this.partition = partition
    this.type = cause.type ?? ""
  }
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
const check = (code: number) => {
  if (code !== 0) throw errorFromCode(code)
}
/** Throws for the first partition that was refused itself, not for the sake of another one. */
const checkPartitions = (refused: ReadonlyArray<PartitionRefused>) => {
  const first = refused.find(({ type }) => type !== "OPERATION_NOT_ATTEMPTED") ?? refused[0]
  if (first !== undefined) throw first
}
const byTopic = <A extends { readonly topic: string }>(list: ReadonlyArray<A>) => [
  ...Map.groupBy(list, ({ topic }) => topic)
]
const readRefused = (answer: Reader): ReadonlyArray<PartitionRefused> => {
  answer.skip(4)
  const topics = answer.array(() => {
    const topic = answer.text()
    return answer.array(() => ({ topic, partition: answer.i32(), errorCode: answer.i16() }))
  })
  return refusedOf(topics.flat())
}
const refusedOf = (list: ReadonlyArray<Omit<Plain.Appended, "base">>): ReadonlyArray<PartitionRefused> =>
  list
    .filter(({ errorCode }) => errorCode !== 0)
    .map(({ errorCode, partition, topic }) => new PartitionRefused(topic, partition, errorCode))
const identified = (transactionalId: string, { epoch, id }: Identity) =>
  new Writer(256).text(transactionalId).i64(id).i16(epoch)

/** Takes an id over: ends what its owner before has under way, and fences it. */
export const initProducerId = (
  broker: Broker,
  transactionalId: string,
  transactionMs: number,
  requestMs: number
): Promise<Identity> =>
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

/** Adds partitions to the transaction, or begins it with them. Throws `PartitionRefused`. */
export const addPartitions = async (
  broker: Broker,
  transactionalId: string,
  identity: Identity,
  partitions: ReadonlyArray<{ readonly topic: string; readonly partition: number }>,
  requestMs: number
): Promise<void> => {
  const request = identified(transactionalId, identity)
  request.array(byTopic(partitions), ([topic, of]) =>
    request.text(topic).array(of, ({ partition }) => request.i32(partition))
  )
  checkPartitions(await send(broker, [24, 1, "AddPartitionsToTxn"], request.bytes(), requestMs, readRefused))
}

/** Adds a group, whose offsets the transaction is to commit. */
export const addOffsets = (
  broker: Broker,
  transactionalId: string,
  identity: Identity,
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

/** Hands the group's coordinator offsets that hold once the transaction is committed. */
export const commitOffsets = async (
  broker: Broker,
  transactionalId: string,
  { epoch, id }: Identity,
  group: string,
  offsets: ReadonlyArray<Offset>,
  requestMs: number
): Promise<void> => {
  const request = new Writer().text(transactionalId).text(group).i64(id).i16(epoch)
  request.array(byTopic(offsets), ([topic, of]) =>
    request
      .text(topic)
      .array(of, ({ metadata, offset, partition }) => request.i32(partition).i64(offset).text(metadata))
  )
  checkPartitions(await send(broker, [28, 1, "TxnOffsetCommit"], request.bytes(), requestMs, readRefused))
}

/** Commits, or aborts. Resolved, it is decided; readers see it some milliseconds later. */
export const endTransaction = (
  broker: Broker,
  transactionalId: string,
  identity: Identity,
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

/** Appends batches, one a partition, as part of the transaction. Throws `PartitionRefused`. */
export const produce = async (
  broker: Broker,
  transactionalId: string,
  batches: ReadonlyArray<Plain.Produced>,
  requestMs: number
): Promise<void> => {
  const patience = { copiesMs: requestMs, answerMs: requestMs }
  checkPartitions(refusedOf(await Plain.produce(broker, transactionalId, batches, patience)))
}

/**
 * A group's committed offsets, settled: UNSTABLE_OFFSET_COMMIT where a transaction with one is not quite ended. Version 7, for older
 * ones cannot tell. Partitions without an offset are left out.
 */
export const fetchOffsets = async (
  broker: Broker,
  group: string,
  partitions: ReadonlyArray<{ readonly topic: string; readonly partition: number }>,
  requestMs: number
): Promise<ReadonlyArray<Offset>> => {
  // the header of a flexible version ends with tagged fields, none
  const request = new Writer().tags().compactText(group)
  request.compactArray(byTopic(partitions), ([topic, of]) =>
    request
      .compactText(topic)
      .compactArray(of, ({ partition }) => request.i32(partition))
      .tags()
  )
  // whatever is not settled is an error
  request.i8(1).tags()
  return send(broker, [9, 7, "OffsetFetch"], request.bytes(), requestMs, (answer) => {
    answer.tags()
    answer.skip(4)
    const topics = answer.compactArray(() => {
      const topic = answer.compactText()
      const of = answer.compactArray((): Offset => {
        const partition = answer.i32()
        const offset = Number(answer.i64())
        answer.skip(4)
        const metadata = answer.compactText()
        const code = answer.i16()
        if (code !== 0) throw new PartitionRefused(topic, partition, code)
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
