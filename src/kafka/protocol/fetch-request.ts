// The fetch request and its answer: by topic id if the broker supports ids, by name if it is older. Record batches stay encoded.
import type { Aborted } from "./batch-decode.ts"
import type { Client } from "./client.ts"
import { failureOfNumber } from "./errors.ts"
import { type Broker, exchange } from "./kafkajs.ts"
import { Reader, Writer } from "./wire.ts"

/** What to fetch. */
export interface FetchRequest {
  readonly topic: string
  /** 32 hex digits. With an id the broker answers for this topic only, not for another one that got its name meanwhile. */
  readonly id: string | undefined
  readonly partition: number
  readonly position: number
  readonly maxBytes: number
  /** How long the broker may wait for something new. */
  readonly waitMs: number
}
/** What a fetch returned of one partition. */
export interface Fetched {
  /** The partition's error number; 0 if there is none. */
  readonly errorCode: number
  /** The last stable offset. */
  readonly stable: number
  readonly aborted: ReadonlyArray<Aborted>
  /** Record batches; the last one may be cut short. */
  readonly bytes: Buffer
}
interface Answer extends Fetched {
  /** The error number of the request as a whole. */
  readonly requestError: number
  readonly clientSideThrottleTime: number
}

const apiKey = 1
/** The first version with topic ids, and the last one that is not encoded flexibly. */
const byId = 13
const byName = 11
const readCommitted = 1

// outside of fetch sessions, any leader epoch
const head = (writer: Writer, { maxBytes, waitMs }: FetchRequest) =>
  writer.i32(-1).i32(waitMs).i32(1).i32(maxBytes).i8(readCommitted).i32(0).i32(-1)

const requestByName = (fetch: FetchRequest): Buffer => {
  const writer = new Writer()
  head(writer, fetch).array([fetch], ({ maxBytes, partition, position, topic }) =>
    writer.text(topic).array([partition], () => writer.i32(partition).i32(-1).i64(position).i64(-1).i32(maxBytes))
  )
  // no forgotten topics, no rack
  return writer.i32(0).i16(0).bytes()
}
const requestById = (fetch: FetchRequest, id: string): Buffer => {
  // the request's header ends with tagged fields
  const writer = new Writer().tags()
  head(writer, fetch).compactArray([fetch], ({ maxBytes, partition, position }) =>
    writer
      .raw(Buffer.from(id, "hex"))
      .compactArray([partition], () => writer.i32(partition).i32(-1).i64(position).i32(-1).i64(-1).i32(maxBytes).tags())
      .tags()
  )
  return writer
    .compactArray([], () => undefined)
    .compactText("")
    .tags()
    .bytes()
}

const abortedOf = (reader: Reader): Aborted => ({ producerId: reader.i64(), firstOffset: Number(reader.i64()) })
/** Skips the partition's number, the high watermark and the log start. */
const partitionHead = (reader: Reader) => {
  reader.i32()
  const errorCode = reader.i16()
  reader.i64()
  const stable = Number(reader.i64())
  reader.i64()
  return { errorCode, stable }
}
const nothing: Fetched = { errorCode: 0, stable: 0, aborted: [], bytes: Buffer.alloc(0) }

const answerByName = (raw: Buffer): Answer => {
  const reader = new Reader(raw)
  const clientSideThrottleTime = reader.i32()
  const requestError = reader.i16()
  reader.i32()
  if (requestError !== 0 || reader.i32() === 0) return { ...nothing, requestError, clientSideThrottleTime }
  reader.text()
  reader.i32()
  const { errorCode, stable } = partitionHead(reader)
  const aborted = reader.array(() => abortedOf(reader))
  reader.i32()
  return { requestError, clientSideThrottleTime, errorCode, stable, aborted, bytes: reader.bytes(reader.i32()) }
}
const answerById = (raw: Buffer): Answer => {
  const reader = new Reader(raw)
  reader.tags()
  const clientSideThrottleTime = reader.i32()
  const requestError = reader.i16()
  reader.i32()
  const [found = nothing] = reader.compactArray(() => {
    reader.skip(16)
    const [partition] = reader.compactArray(() => {
      const { errorCode, stable } = partitionHead(reader)
      const aborted = reader.compactArray(() => {
        const one = abortedOf(reader)
        reader.tags()
        return one
      })
      reader.i32()
      const bytes = reader.compactBytes()
      reader.tags()
      return { errorCode, stable, aborted, bytes }
    })
    reader.tags()
    return partition
  })
  return { requestError, clientSideThrottleTime, ...found }
}

const check = (number: number) => {
  if (number !== 0) throw failureOfNumber(number)
}

const outOfRange = 1

/**
 * Fetches once over a connection, and waits up to `waitMs` for something new. Undefined if the position is out of range. Rejects with
 * `KafkaFailure`.
 */
export const fetch = async (client: Client, broker: Broker, request: FetchRequest): Promise<Fetched | undefined> => {
  const timeoutMs = request.waitMs + client.requestMs
  return client.within(broker, send(broker, request, timeoutMs), timeoutMs)
}
const send = async (broker: Broker, fetch: FetchRequest, timeoutMs: number): Promise<Fetched | undefined> => {
  const { id } = fetch
  const isById = id !== undefined && (broker.versions?.[apiKey]?.maxVersion ?? 0) >= byId
  const bytes = isById ? requestById(fetch, id) : requestByName(fetch)
  const api = [apiKey, isById ? byId : byName, "Fetch"] as const
  const answer = await exchange<Answer>(broker, api, bytes, isById ? answerById : answerByName, timeoutMs)
  check(answer.requestError)
  if (answer.errorCode === outOfRange) return undefined
  check(answer.errorCode)
  return answer
}
