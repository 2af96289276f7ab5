// The requests of a transactional producer on the wire, and their answers. It keeps nothing and tries nothing again.
import { type Broker, errorFromCode, payloadOf, type Throttled } from "./driver.ts"

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
/** A batch for a partition, stamped. */
export interface Produced {
  readonly topic: string
  readonly partition: number
  readonly bytes: Buffer
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

/** A request while it is written. Sizes are known or small, so that it seldom grows. */
class Writer {
  private bytes: Buffer
  private at = 0
  constructor(size: number) {
    this.bytes = Buffer.allocUnsafe(size)
  }
  private room(size: number): number {
    const { at } = this
    if (at + size > this.bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(at + size, this.bytes.length * 2))
      this.bytes.copy(grown, 0, 0, at)
      this.bytes = grown
    }
    this.at = at + size
    return at
  }
  i8(value: number) {
    const at = this.room(1)
    this.bytes.writeInt8(value, at)
    return this
  }
  i16(value: number) {
    const at = this.room(2)
    this.bytes.writeInt16BE(value, at)
    return this
  }
  i32(value: number) {
    const at = this.room(4)
    this.bytes.writeInt32BE(value, at)
    return this
  }
  i64(value: bigint) {
    const at = this.room(8)
    this.bytes.writeBigInt64BE(value, at)
    return this
  }
  raw(value: Buffer) {
    const at = this.room(value.length)
    value.copy(this.bytes, at)
    return this
  }
  text(value: string) {
    const bytes = Buffer.from(value)
    return this.i16(bytes.length).raw(bytes)
  }
  /** Of the newer, flexible versions: lengths are varints, less one. */
  compact(length: number) {
    for (let rest = length + 1; ; rest >>>= 7) {
      const at = this.room(1)
      this.bytes[at] = rest > 127 ? (rest & 127) | 128 : rest
      if (rest <= 127) return this
    }
  }
  compactText(value: string) {
    const bytes = Buffer.from(value)
    return this.compact(bytes.length).raw(bytes)
  }
  done(): Buffer {
    return this.bytes.subarray(0, this.at)
  }
}
/** An answer while it is read. */
class Reader {
  private readonly bytes: Buffer
  private at = 0
  constructor(bytes: Buffer) {
    this.bytes = bytes
  }
  skip(size: number) {
    this.at += size
  }
  i16(): number {
    this.at += 2
    return this.bytes.readInt16BE(this.at - 2)
  }
  i32(): number {
    this.at += 4
    return this.bytes.readInt32BE(this.at - 4)
  }
  i64(): bigint {
    this.at += 8
    return this.bytes.readBigInt64BE(this.at - 8)
  }
  private slice(size: number): string {
    this.at += size
    return this.bytes.toString("utf8", this.at - size, this.at)
  }
  text(): string {
    return this.slice(Math.max(0, this.i16()))
  }
  varint(): number {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = this.bytes.readUInt8(this.at++)
      value |= (byte & 127) << shift
      if (byte < 128) return value
    }
  }
  compactText(): string {
    return this.slice(Math.max(0, this.varint() - 1))
  }
  /** Passes over the tagged fields of a flexible version. */
  tags() {
    for (let count = this.varint(); count > 0; count--) {
      this.varint()
      this.skip(this.varint())
    }
  }
}

const send = async <A>(
  broker: Broker,
  [apiKey, apiVersion, apiName]: readonly [number, number, string],
  bytes: Buffer,
  requestMs: number,
  read: (answer: Reader) => A
): Promise<A> => {
  const connection = await broker.connectionPool.getConnection(0)
  const { value } = await connection.send<{ readonly value: A } & Throttled>({
    request: { apiKey, apiVersion, apiName, encode: () => Promise.resolve(payloadOf(bytes)) },
    response: {
      decode: (raw) => Promise.resolve({ value: read(new Reader(raw)) }),
      parse: (decoded) => Promise.resolve(decoded)
    },
    requestTimeout: requestMs,
    logResponseError: false
  })
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
const byTopic = <A extends { readonly topic: string }>(list: ReadonlyArray<A>) =>
  Map.groupBy(list, ({ topic }) => topic)
const readPartitions = (answer: Reader, skip: number): ReadonlyArray<PartitionRefused> => {
  const refused: Array<PartitionRefused> = []
  for (let topics = answer.i32(); topics > 0; topics--) {
    const topic = answer.text()
    for (let count = answer.i32(); count > 0; count--) {
      const partition = answer.i32()
      const code = answer.i16()
      answer.skip(skip)
      if (code !== 0) refused.push(new PartitionRefused(topic, partition, code))
    }
  }
  return refused
}
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
    new Writer(64).text(transactionalId).i32(transactionMs).done(),
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
  const topics = byTopic(partitions)
  const request = identified(transactionalId, identity).i32(topics.size)
  for (const [topic, of] of topics) {
    request.text(topic).i32(of.length)
    for (const { partition } of of) request.i32(partition)
  }
  const refused = await send(broker, [24, 1, "AddPartitionsToTxn"], request.done(), requestMs, (answer) => {
    answer.skip(4)
    return readPartitions(answer, 0)
  })
  checkPartitions(refused)
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
    identified(transactionalId, identity).text(group).done(),
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
  const topics = byTopic(offsets)
  const request = new Writer(256).text(transactionalId).text(group).i64(id).i16(epoch).i32(topics.size)
  for (const [topic, of] of topics) {
    request.text(topic).i32(of.length)
    for (const { metadata, offset, partition } of of) request.i32(partition).i64(BigInt(offset)).text(metadata)
  }
  const refused = await send(broker, [28, 1, "TxnOffsetCommit"], request.done(), requestMs, (answer) => {
    answer.skip(4)
    return readPartitions(answer, 0)
  })
  checkPartitions(refused)
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
      .done(),
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
  batches: ReadonlyArray<Produced>,
  requestMs: number
): Promise<void> => {
  const topics = byTopic(batches)
  const size = batches.reduce((sum, { bytes }) => sum + bytes.length + 8, 256)
  const request = new Writer(size).text(transactionalId).i16(-1).i32(requestMs).i32(topics.size)
  for (const [topic, of] of topics) {
    request.text(topic).i32(of.length)
    for (const { bytes, partition } of of) request.i32(partition).i32(bytes.length).raw(bytes)
  }
  // each partition's answer goes on with its offset, the append time and the log's start
  const refused = await send(broker, [0, 7, "Produce"], request.done(), requestMs, (answer) =>
    readPartitions(answer, 24)
  )
  checkPartitions(refused)
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
  const topics = byTopic(partitions)
  // the header of a flexible version ends with tagged fields, none
  const request = new Writer(256).i8(0).compactText(group).compact(topics.size)
  for (const [topic, of] of topics) {
    request.compactText(topic).compact(of.length)
    for (const { partition } of of) request.i32(partition)
    request.i8(0)
  }
  request.i8(1).i8(0)
  return send(broker, [9, 7, "OffsetFetch"], request.done(), requestMs, (answer) => {
    answer.tags()
    answer.skip(4)
    const offsets: Array<Offset> = []
    for (let count = answer.varint() - 1; count > 0; count--) {
      const topic = answer.compactText()
      for (let more = answer.varint() - 1; more > 0; more--) {
        const partition = answer.i32()
        const offset = Number(answer.i64())
        answer.skip(4)
        const metadata = answer.compactText()
        const code = answer.i16()
        if (code !== 0) throw new PartitionRefused(topic, partition, code)
        answer.tags()
        if (offset >= 0) offsets.push({ topic, partition, offset, metadata })
      }
      answer.tags()
    }
    check(answer.i16())
    return offsets
  })
}
