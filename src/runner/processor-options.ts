// What the processor of a partition's batches is made from.
import type { Projection } from "../model/projection.ts"
import type { Topic } from "../model/topic.ts"
import type { Samplers } from "./behaviour.ts"
import type { ChainLinks } from "./chain.ts"
import type { FollowerTurns } from "./follower-turns.ts"
import type { LookupTable } from "./lookup-tables.ts"
import type { Claim, Store } from "./store.ts"

/** What a processor is made from. */
export interface ProcessorOptions<E, R> {
  readonly projection: Projection.Of<E, R>
  readonly source: Topic.Any
  /** The number of the source's partitions. */
  readonly partitions: number
  readonly claim: Claim
  /** The tables of the projection's lookup topics, by topic. */
  readonly lookupTables: ReadonlyMap<string, LookupTable>
  readonly store: Store["Service"]
  /** What takes samples of what handlers do. Default: nothing is sampled. */
  readonly samplers?: Samplers
  /** The turns that a follower computes in. Default: it computes when it can. */
  readonly turns?: FollowerTurns
  /** The streams around the partition. Default: the projection stands by itself. */
  readonly links?: ChainLinks
  /** Whether records have the keys that decide their partition. Default true. */
  readonly hasKeys?: boolean
}
