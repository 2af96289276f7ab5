// Fetches records of one partition: kafkajs's request, and an answer read by this adapter's own decoder. It waits no longer than told.
import { type Batch, OutOfRange, type Position } from "../log.ts"
import { misplaced } from "../log-rules.ts"
import { check, type Client } from "./client.ts"
import { type Aborted, decode } from "./decode.ts"
import { type Broker, Encoder } from "./driver.ts"

/** The partition to read. */
export interface Source {
  readonly topic: string
  readonly partition: number
  readonly maxBytes: number
}
interface Answer {
  readonly errorCode: number
  readonly stable: Position
  readonly aborted: ReadonlyArray<Aborted>
  readonly bytes: Buffer
}
const outOfRange = 1
const readCommitted = 1

// Fetch, version 11: outside of fetch sessions, any leader epoch
const request = ({ maxBytes, partition, topic }: Source, position: Position, waitMs: number) => {
  const name = Buffer.from(topic)
  const buffer = Buffer.alloc(name.length + 69)
  let at = 0
  const i32 = (value: number) => (at = buffer.writeInt32BE(value, at))
  const i64 = (value: number) => (at = buffer.writeBigInt64BE(BigInt(value), at))
  i32(-1)
  i32(waitMs)
  i32(1)
  i32(maxBytes)
  at = buffer.writeInt8(readCommitted, at)
  i32(0)
  i32(-1)
  i32(1)
  at = buffer.writeInt16BE(name.length, at)
  at += name.copy(buffer, at)
  i32(1)
  i32(partition)
  i32(-1)
  i64(position)
  i64(-1)
  i32(maxBytes)
  i32(0)
  buffer.writeInt16BE(0, at)
  return buffer
}

const answerOf = (raw: Buffer): Answer => {
  check(raw.readInt16BE(4))
  // throttle time, error, session, one topic with its name, one partition
  let at = 14
  at += 2 + raw.readInt16BE(at) + 4 + 4
  const errorCode = raw.readInt16BE(at)
  const stable = Number(raw.readBigInt64BE(at + 10))
  at += 26
  const aborted: Array<Aborted> = []
  const count = raw.readInt32BE(at)
  at += 4
  for (let i = 0; i < count; i++, at += 16)
    aborted.push({ producerId: raw.readBigInt64BE(at), firstOffset: Number(raw.readBigInt64BE(at + 8)) })
  const size = raw.readInt32BE(at + 4)
  return { errorCode, stable, aborted, bytes: raw.subarray(at + 8, at + 8 + Math.max(0, size)) }
}

const response = {
  decode: (raw: Buffer) => Promise.resolve({ ...answerOf(raw), clientSideThrottleTime: raw.readInt32BE(0) }),
  parse: (answer: Answer) => Promise.resolve(answer)
}

/** Start and end of partitions, read committed. */
export const offsets = async (client: Client, topic: string, partitions: ReadonlyArray<number>) => {
  const found = new Map<number, { start: Position; end: Position }>()
  const leaders = await Promise.all(partitions.map((partition) => client.leader(topic, partition)))
  const ask = async (node: number, timestamp: string, take: (partition: number, offset: Position) => void) => {
    const asked = partitions.filter((_, i) => leaders[i] === node).map((partition) => ({ partition, timestamp }))
    const { responses } = await client.use(node, "ask", (broker) =>
      broker.listOffsets({ replicaId: -1, isolationLevel: readCommitted, topics: [{ topic, partitions: asked }] })
    )
    for (const { offset, partition } of responses.flatMap((one) => one.partitions)) take(partition, Number(offset))
  }
  for (const partition of partitions) found.set(partition, { start: 0, end: 0 })
  await Promise.all(
    [...new Set(leaders)].flatMap((node) => [
      ask(node, "-2", (partition, offset) => (found.get(partition)!.start = offset)),
      ask(node, "-1", (partition, offset) => (found.get(partition)!.end = offset))
    ])
  )
  return found
}

/** The error for a position that is not there; undefined where it is. Positions that transactions under way hold back are there. */
export const rangeError = async (client: Client, { partition, topic }: Source, position: Position) => {
  const { end, start } = (await offsets(client, topic, [partition])).get(partition)!
  return new OutOfRange({ topic, partition, position, start, end })
}

/** Fails where a topic has no such partition. */
export const topicWith = async (client: Client, name: string, partition: number) => {
  const topic = await client.topic(name)
  const refused = misplaced(name, topic.leaders.length, partition)
  if (refused !== undefined) throw refused
  return topic
}

/** One fetch over a connection. No records and the same position: there was nothing within `waitMs`. Longer than `maxBytes`: `cut` it. */
export const fetch = async (
  client: Client,
  broker: Broker,
  source: Source,
  position: Position,
  waitMs: number
): Promise<Batch | OutOfRange> => {
  if (!(Number.isSafeInteger(position) && position >= 0)) return rangeError(client, source, position)
  const buffer = request(source, position, waitMs)
  const send = async () => {
    const connection = await broker.connectionPool.getConnection(0)
    return connection.send<Answer>({
      request: {
        apiKey: 1,
        apiVersion: 11,
        apiName: "Fetch",
        encode: () => Promise.resolve(new Encoder().writeBuffer(buffer))
      },
      response,
      requestTimeout: waitMs + client.requestMs,
      logResponseError: false
    })
  }
  const { aborted, bytes, errorCode, stable } = await client.within(broker, send(), waitMs + client.requestMs)
  if (errorCode === outOfRange) return rangeError(client, source, position)
  check(errorCode)
  const { next, records } = decode(bytes, source.partition, position, aborted)
  return { records, next, end: Math.max(stable, next) }
}
