// Where a subscription begins and where it is moved to, by the admin interface: for places that a client cannot name when it subscribes.
import type { StartAt } from "../../subscription/fanout.ts"
import type { Admin } from "../client/admin.ts"
import { PulsarFailure } from "../client/errors.ts"
import { messageIdAt } from "../client/message-id.ts"

/** Where one partition begins. */
type Place = "earliest" | "latest" | { readonly time: number } | { readonly position: number }

const placeIn = (partition: number, to: StartAt): Place => {
  if (typeof to === "string" || "time" in to) return to
  const positions = to.places.filter((place) => place.partition === partition).map(({ position }) => position)
  return positions.length === 0 ? "earliest" : { position: Math.min(...positions) }
}
/** Moves a subscription of one partition. */
const move = async (admin: Admin, topic: string, name: string, place: Place): Promise<void> => {
  const isLatest = place === "latest" || (typeof place === "object" && "time" in place && place.time > Date.now())
  if (isLatest) return admin.onSubscription("POST", topic, name, "/skip_all")
  if (place === "earliest")
    return admin.onSubscription("POST", topic, name, "/resetcursor", { ledgerId: -1, entryId: -1 })
  if (typeof place === "object" && "time" in place)
    return admin.onSubscription("POST", topic, name, `/resetcursor/${Math.floor(place.time)}`)
  const id = messageIdAt((place as { readonly position: number }).position)
  if (id === undefined)
    throw new PulsarFailure("other", false, "this position does not say where its message is: give a time instead")
  const { batch, entry: entryId, ledger: ledgerId } = id
  const body = { ledgerId, entryId, partitionIndex: -1, batchIndex: batch, isExcluded: false }
  await admin.onSubscription("POST", topic, name, "/resetcursor", body)
}

/** Makes a subscription where it is not there; one that is stays where it was. Partitions are named in their order. */
export const begin = async (
  admin: Admin,
  topics: ReadonlyArray<string>,
  name: string,
  from: StartAt
): Promise<void> => {
  for (const [partition, topic] of topics.entries()) {
    if ((await admin.subscription(topic, name)) !== undefined) continue
    await admin.onSubscription("PUT", topic, name, "")
    await move(admin, topic, name, placeIn(partition, from))
  }
}
/** Moves a subscription that nobody uses, or makes it. */
export const moveAll = async (
  admin: Admin,
  topics: ReadonlyArray<string>,
  name: string,
  to: StartAt
): Promise<void> => {
  for (const [partition, topic] of topics.entries()) {
    if ((await admin.subscription(topic, name)) === undefined) await admin.onSubscription("PUT", topic, name, "")
    await move(admin, topic, name, placeIn(partition, to))
  }
}
