// Turns a record of the log into the message that a consumer receives, and sorts messages by position. Pure.
import type { Message } from "../../subscription/fanout.ts"
import { addEnvelope, streamHeaders } from "../../log/envelope.ts"
import type { LogRecord } from "../../log/log.ts"

/** The message of a record. `redeliveries`: how often it was delivered before. */
export const messageOf = (topic: string, record: LogRecord, redeliveries: number): Message => {
  const { eventTime, headers, key, partition, position, value } = record
  const properties: Record<string, string> = { ...headers }
  addEnvelope(properties, record)
  const seq = headers[streamHeaders.sequence]
  return {
    topic,
    partition,
    position,
    key: key ?? "",
    value: value ?? "null",
    eventTime,
    properties,
    stream: headers[streamHeaders.stream],
    seq: seq === undefined ? undefined : Number(seq),
    incarnation: headers[streamHeaders.incarnation],
    redeliveries
  }
}

/** Where a record is in a topic. */
export type RecordPosition = Pick<Message, "partition" | "position">

/** Compares messages by partition, then by position. */
export const byPosition = (a: Message, b: Message) => a.partition - b.partition || a.position - b.position

/** The positions of messages by partition, ascending and without duplicates. */
export const positionsOf = (messages: ReadonlyArray<RecordPosition>) => {
  const partitions = new Map<number, Set<number>>()
  for (const { partition, position } of messages) {
    const positions = partitions.get(partition)
    if (positions === undefined) partitions.set(partition, new Set([position]))
    else positions.add(position)
  }
  return [...partitions].map(([partition, positions]) => ({
    partition,
    positions: [...positions].toSorted((a, b) => a - b)
  }))
}
