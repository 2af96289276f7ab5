// A record of the log as the message that a consumer gets, and messages by their places. It reads nothing.
import type { Message } from "../../subscription/fanout.ts"
import { addEnvelope, streamHeaders } from "../../log/envelope.ts"
import type { LogRecord } from "../../log/log.ts"

/** The message of a record that was delivered so often before. */
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

/** In the order of partitions, then of positions. */
export const byPlace = (a: Message, b: Message) => a.partition - b.partition || a.position - b.position

/** Positions by partition, ascending, each once. */
export const positionsOf = (messages: ReadonlyArray<Pick<Message, "partition" | "position">>) => {
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
