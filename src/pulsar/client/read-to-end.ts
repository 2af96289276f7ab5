// Reads a topic from a position to its present end, by a reader that belongs to no subscription.
import { PulsarFailure } from "./errors.ts"
import type { Cluster } from "./cluster.ts"
import { compareMessageIds, type MessageId } from "./message-id.ts"
import type { Received } from "./transport.ts"

/**
 * How long the next message may take, in milliseconds. After that, reading failed if the end of the topic is known; if it is not, the topic counts as
 * read.
 */
const silenceMs = { endKnown: 10_000, endUnknown: 2_000 }

/**
 * Calls `take` for every message after a position, or from the first one, in the topic's order, up to the end that the topic has when reading starts.
 * Resolves with the id of the last message: undefined if the topic has none or does not exist. Without the admin interface the end is not known, and
 * the id is that of the last message read, or `after`. Rejects with a `PulsarFailure`, which is retryable if the last messages do not arrive.
 */
export const readToEnd = async (
  cluster: Cluster,
  topic: string,
  after: MessageId | undefined,
  take: (message: Received) => void
): Promise<MessageId | undefined> => {
  const end = await cluster.admin?.lastMessageId(topic)
  const isRead = end === undefined || (after !== undefined && compareMessageIds(end, after) <= 0)
  if (cluster.admin !== undefined && isRead) return end
  const reader = await cluster.transport.read({ topic, from: after ?? "earliest" })
  try {
    let last = after
    while (true) {
      const next = await reader.next(end === undefined ? silenceMs.endUnknown : silenceMs.endKnown)
      if (next === undefined && end !== undefined)
        throw new PulsarFailure("lost", true, `${topic}: its last messages do not arrive`)
      if (next === undefined) return last
      last = next.id
      take(next)
      if (end !== undefined && compareMessageIds(next.id, end) >= 0) return end
    }
  } finally {
    await reader.close()
  }
}
