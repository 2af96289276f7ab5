// What a topic ends with of one stream, read after nobody else can write there: the one proof of what was sent and not written down.
import { retryHeader } from "../../dead-letter/retry-record.ts"
import { streamHeaders } from "../../log/envelope.ts"
import { PulsarFailure } from "../client/errors.ts"
import type { Cluster } from "../client/cluster.ts"
import { compareMessageIds, decodeMessageId, encodeMessageId, type MessageId } from "../client/message-id.ts"
import { sentProperty } from "./messages.ts"
import { readToEnd } from "../client/read-to-end.ts"

/** A message of the stream that is in the topic. */
export interface Present {
  readonly seq: number
  readonly incarnation: string
  readonly sent: number
  readonly id: MessageId
}
/** What lies behind a place. */
export interface Tail {
  /** Of the stream, in the topic's order. */
  readonly present: ReadonlyArray<Present>
  /** The topic's last message, of whatever stream; undefined: it has none, or that is not known. */
  readonly end: MessageId | undefined
}

/** A place as the database keeps it; empty: before the first message. */
export const placeText = (id: MessageId | undefined): string =>
  id === undefined ? "" : Buffer.from(encodeMessageId(id)).toString("base64")
const placeOf = (text: string): MessageId | undefined =>
  text === "" ? undefined : decodeMessageId(Buffer.from(text, "base64"))

/**
 * Reads a topic from a place to its end as it is now. Rejects with a `PulsarFailure`, one that is not retryable where the topic ends before the
 * place: then it is not the topic that it was. One without messages may be: retention removes them once everyone had them.
 */
export const tailOf = async (cluster: Cluster, topic: string, stream: string, place: string): Promise<Tail> => {
  const after = placeOf(place)
  const present: Array<Present> = []
  const end = await readToEnd(cluster, topic, after, ({ id, properties }) => {
    const {
      [streamHeaders.incarnation]: incarnation = "",
      [streamHeaders.sequence]: seq,
      [streamHeaders.stream]: of
    } = properties
    // one that was parked and sent by itself, or that a subscription gave up, is none that the relay sent
    if (of === stream && properties[retryHeader] === undefined)
      present.push({ seq: Number(seq), incarnation, sent: Number(properties[sentProperty]), id })
  })
  if (after !== undefined && end !== undefined && compareMessageIds(end, after) < 0)
    throw new PulsarFailure("other", false, `${topic} ends before what was sent to it`)
  return { present, end }
}
