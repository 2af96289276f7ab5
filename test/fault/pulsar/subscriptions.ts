// The subscriptions of a run: every type on a topic without partitions, and the ordered types on a partitioned one.
import type { SubscriptionType } from "../../../src/subscription/fanout.ts"

/** A subscription and its topic. */
export interface Subscribed {
  readonly name: string
  readonly tenant: string
  readonly topic: string
  readonly type: SubscriptionType
}
/** All of them. */
export const subscriptions: ReadonlyArray<Subscribed> = [
  { name: "north-shared", tenant: "north", topic: "alerts", type: "shared" },
  { name: "north-keyed", tenant: "north", topic: "alerts", type: "keyShared" },
  { name: "north-failover", tenant: "north", topic: "alerts", type: "failover" },
  { name: "south-keyed", tenant: "south", topic: "scores", type: "keyShared" },
  { name: "south-failover", tenant: "south", topic: "scores", type: "failover" }
]
