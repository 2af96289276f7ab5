// The processors of a replay in memory: one for each partition of the sources, claimed when its first record comes.
import * as Effect from "effect/Effect"
import type { Projection } from "../model/projection.ts"
import type { Topic } from "../model/topic.ts"
import { type ChainLinks, unlinked } from "./chain.ts"
import type { LookupTable } from "./lookup-tables.ts"
import { PartitionProcessor } from "./partition-processor.ts"
import type { Store } from "./store.ts"

/** A source that is replayed, with its partitions and the streams around them. */
interface ReplayedSource {
  readonly topic: Topic.Any
  readonly partitions: number
  readonly links?: ChainLinks
}
/** The processors of one projection over a store that is not written elsewhere. What they publish goes nowhere. */
export class ReplayProcessors<E, R> {
  private readonly processors = new Map<string, PartitionProcessor<E, R>>()
  private readonly projection: Projection.Of<E, R>
  private readonly lookupTables: ReadonlyMap<string, LookupTable>
  private readonly store: Store["Service"]

  constructor(
    projection: Projection.Of<E, R>,
    lookupTables: ReadonlyMap<string, LookupTable>,
    store: Store["Service"]
  ) {
    this.projection = projection
    this.lookupTables = lookupTables
    this.store = store
  }

  /** The processor of a partition. */
  readonly of = Effect.fnUntraced(function* (
    this: ReplayProcessors<E, R>,
    { links = unlinked, partitions, topic }: ReplayedSource,
    partition: number
  ) {
    const at = `${topic.name}/${partition}`
    let processor = this.processors.get(at)
    if (processor === undefined) {
      const { lookupTables, projection, store } = this
      const claim = yield* store.claim(projection, topic.name, partition, 1)
      processor = new PartitionProcessor({
        projection,
        source: topic,
        partitions,
        claim,
        lookupTables,
        store,
        links: { ...links, targets: [] }
      })
      this.processors.set(at, processor)
    }
    return processor
  })
}
