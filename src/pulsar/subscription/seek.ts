// Moves subscriptions by the admin interface, to positions and times that a client cannot give when it subscribes.
import type { StartPosition } from "../../subscription/fanout.ts"
import type { Admin } from "../client/admin.ts"
import { PulsarFailure } from "../client/errors.ts"
import { messageIdAt } from "../client/message-id.ts"

/** Where a subscription starts in one partition. */
type PartitionStart = "earliest" | "latest" | { readonly time: number } | { readonly position: number }

const startIn = (partition: number, to: StartPosition): PartitionStart => {
  if (typeof to === "string" || "time" in to) return to
  const positions = to.places.filter((place) => place.partition === partition).map(({ position }) => position)
  return positions.length === 0 ? "earliest" : { position: Math.min(...positions) }
}
/** Moves the subscription of one partition. */
const move = async (admin: Admin, topic: string, name: string, start: PartitionStart): Promise<void> => {
  const isLatest = start === "latest" || (typeof start === "object" && "time" in start && start.time > Date.now())
  if (isLatest) return admin.onSubscription("POST", topic, name, "/skip_all")
  if (start === "earliest")
    return admin.onSubscription("POST", topic, name, "/resetcursor", { ledgerId: -1, entryId: -1 })
  if (typeof start === "object" && "time" in start)
    return admin.onSubscription("POST", topic, name, `/resetcursor/${Math.floor(start.time)}`)
  const id = messageIdAt((start as { readonly position: number }).position)
  if (id === undefined)
    throw new PulsarFailure(
      "other",
      false,
      "this position does not contain a message id, because ledger or entry are too large for it; give a time instead"
    )
  const { batch, entry: entryId, ledger: ledgerId } = id
  const body = { ledgerId, entryId, partitionIndex: -1, batchIndex: batch, isExcluded: false }
  await admin.onSubscription("POST", topic, name, "/resetcursor", body)
}

const startAll = async (
  admin: Admin,
  topics: ReadonlyArray<string>,
  name: string,
  to: StartPosition,
  keepExisting: boolean
): Promise<void> => {
  for (const [partition, topic] of topics.entries()) {
    const exists = (await admin.subscription(topic, name)) !== undefined
    if (exists && keepExisting) continue
    if (!exists) await admin.onSubscription("PUT", topic, name, "")
    await move(admin, topic, name, startIn(partition, to))
  }
}
/** Creates a subscription at a start in each partition. Where it exists already it stays as it is. `topics` are the partitions in order. */
export const createAt = (
  admin: Admin,
  topics: ReadonlyArray<string>,
  name: string,
  from: StartPosition
): Promise<void> => startAll(admin, topics, name, from, true)
/** Moves a subscription without consumers. Creates it where it does not exist. `topics` are the partitions in order. */
export const moveTo = (admin: Admin, topics: ReadonlyArray<string>, name: string, to: StartPosition): Promise<void> =>
  startAll(admin, topics, name, to, false)
