// Reads the messages of one stream at the end of a topic. Once no other process can write there, this proves what was sent and not recorded.
import { retryHeader } from "../../dead-letter/retry-record.ts"
import { streamHeaders } from "../../log/envelope.ts"
import { PulsarFailure } from "../client/errors.ts"
import type { Cluster } from "../client/cluster.ts"
import { compareMessageIds, decodeMessageId, encodeMessageId, type MessageId } from "../client/message-id.ts"
import { sentProperty } from "./messages.ts"
import { readToEnd } from "../client/read-to-end.ts"

/** A message of the stream that the topic has. `sent` is its sequence id. */
export interface StoredMessage {
  readonly seq: number
  readonly incarnation: string
  readonly sent: number
  readonly id: MessageId
}
/** What a topic has after a position. */
export interface TopicTail {
  /** The messages of the stream, in the topic's order. */
  readonly present: ReadonlyArray<StoredMessage>
  /** The id of the topic's last message, of any stream; undefined if it has none or that is not known. */
  readonly end: MessageId | undefined
}

/** A position in a topic as the database keeps it: base64 of the message id; empty for before the first message. */
export const encodePosition = (id: MessageId | undefined): string =>
  id === undefined ? "" : Buffer.from(encodeMessageId(id)).toString("base64")
const decodePosition = (text: string): MessageId | undefined =>
  text === "" ? undefined : decodeMessageId(Buffer.from(text, "base64"))

/**
 * Reads a topic from a position to its present end. Rejects with a `PulsarFailure`; one that is not retryable if the topic ends before the position,
 * because then it is another topic of the same name. A topic without messages is accepted: retention removes them once all subscriptions had them.
 */
export const readTail = async (cluster: Cluster, topic: string, stream: string, place: string): Promise<TopicTail> => {
  const after = decodePosition(place)
  const present: Array<StoredMessage> = []
  const end = await readToEnd(cluster, topic, after, ({ id, properties }) => {
    const {
      [streamHeaders.incarnation]: incarnation = "",
      [streamHeaders.sequence]: seq,
      [streamHeaders.stream]: of
    } = properties
    // retries of dead letters were not sent by the relay
    if (of === stream && properties[retryHeader] === undefined)
      present.push({ seq: Number(seq), incarnation, sent: Number(properties[sentProperty]), id })
  })
  if (after !== undefined && end !== undefined && compareMessageIds(end, after) < 0)
    throw new PulsarFailure(
      "other",
      false,
      `${topic} ends before the last message that was sent to it, so it was recreated or restored`
    )
  return { present, end }
}
