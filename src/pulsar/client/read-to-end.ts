// What a topic has from a place to its end as it is now, by a reader of its own. It takes no part in any subscription.
import { PulsarFailure } from "./errors.ts"
import type { Cluster } from "./cluster.ts"
import { compareMessageIds, type MessageId } from "./message-id.ts"
import type { Received } from "./transport.ts"

/** So long the next message may take, in milliseconds: where the end is known that is a failure then, else the topic counts as read. */
const silentMs = { known: 10_000, unknown: 2_000 }

/**
 * Hands over what lies behind a place, or all, in the topic's order, and answers where the topic ended at the beginning; without an admin
 * interface, where it was read to. Rejects with a `PulsarFailure`, a retryable one where the last messages do not come.
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
      const next = await reader.next(end === undefined ? silentMs.unknown : silentMs.known)
      if (next === undefined && end !== undefined)
        throw new PulsarFailure("lost", true, `${topic}: its last messages do not come`)
      if (next === undefined) return last
      last = next.id
      take(next)
      if (end !== undefined && compareMessageIds(next.id, end) >= 0) return end
    }
  } finally {
    await reader.close()
  }
}
