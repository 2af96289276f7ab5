// What a topic ends with of one stream, read after nobody else can write there: the one proof of what was sent and not written down.
import { retryHeader } from "../retry.ts"
import { failureOf, PulsarFailure } from "./errors.ts"
import type { Cluster } from "./fanout.ts"
import { byPlace, decodeMessageId, encodeMessageId, type MessageId } from "./message-id.ts"
import { sentProperty } from "./relay-decode.ts"

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

/** A topic without an admin interface counts as read after so long a silence; with it, that is a failure. */
const silentMs = { known: 10_000, unknown: 2_000 }

/** Where the topic ends. Undefined: it is empty, or is not there, or the admin interface is not known. */
export const endOf = async ({ admin }: Cluster, topic: string): Promise<MessageId | undefined> =>
  admin?.lastMessageId(topic).catch((cause: unknown) => {
    if (failureOf(cause, topic).kind === "missing") return undefined
    throw cause
  })

/**
 * Reads a topic from a place to its end as it is now. Rejects with a `PulsarFailure`, one that is not retryable where the topic ends before the
 * place: then it is not the topic that it was. One without messages may be: retention removes them once everyone had them.
 */
export const tailOf = async (cluster: Cluster, topic: string, stream: string, place: string): Promise<Tail> => {
  const after = placeOf(place)
  const end = await endOf(cluster, topic)
  if (cluster.admin !== undefined) {
    if (after !== undefined && end !== undefined && byPlace(end, after) < 0)
      throw new PulsarFailure("other", false, `${topic} ends before what was sent to it`)
    if (end === undefined || (after !== undefined && byPlace(end, after) === 0)) return { present: [], end }
  }
  const reader = await cluster.transport.read({ topic, from: after ?? "earliest" })
  try {
    const present: Array<Present> = []
    let last: MessageId | undefined
    while (true) {
      const next = await reader.next(end === undefined ? silentMs.unknown : silentMs.known)
      if (next === undefined && end !== undefined)
        throw new PulsarFailure("lost", true, `${topic}: its last messages do not come`)
      if (next === undefined) return { present, end: last ?? after }
      last = next.id
      const { "millrace-incarnation": incarnation = "", "millrace-seq": seq, "millrace-stream": of } = next.properties
      // one that was parked and sent by itself, or that a subscription gave up, is none that the relay sent
      if (of === stream && next.properties[retryHeader] === undefined)
        present.push({ seq: Number(seq), incarnation, sent: Number(next.properties[sentProperty]), id: next.id })
      if (end !== undefined && byPlace(next.id, end) >= 0) return { present, end }
    }
  } finally {
    await reader.close()
  }
}
