// The store of a replay that only looks: in memory, with the ids that were seen packed, and with the lookups that the build saw.
import * as Effect from "effect/Effect"
import type { RetryOwner } from "../dead-letter/retry-record.ts"
import type { SubjectKeys } from "../erasure/subject-keys.ts"
import type { LookupStore } from "./lookup-store.ts"
import type { MemoryStore } from "./memory-store.ts"
import { SeenChunks } from "./seen-chunks.ts"
import { type Changes, type ProjectionPartition, Store } from "./store.ts"

/** What a replay knows of the database whose log it replays. */
export interface ReplayStoreOptions {
  /** By what retry records are recognized. */
  readonly owner: RetryOwner | undefined
  /** What the build saw of lookups. Default: the newest value that was appended before each event. */
  readonly lookups?: LookupStore | undefined
  /** The keys of personal fields. Default: there are none. */
  readonly subjectKeys?: Pick<SubjectKeys["Service"], "forValues"> | undefined
  /** Is called after each commit. */
  readonly onCommit?: (changes: Changes) => void
}

/** Commits to the memory of a replay. */
export const replayStore = (
  memory: MemoryStore,
  { lookups, onCommit, owner, subjectKeys }: ReplayStoreOptions
): Store["Service"] => {
  const { service } = memory
  const seen = new Map<string, SeenChunks>()
  const seenOf = ({ partition, topic }: ProjectionPartition): SeenChunks => {
    const at = `${topic}/${partition}`
    let chunks = seen.get(at)
    if (chunks === undefined) seen.set(at, (chunks = new SeenChunks()))
    return chunks
  }
  return Store.of({
    ...service,
    lookups: lookups ?? service.lookups,
    subjectKeys: subjectKeys ?? service.subjectKeys,
    claim: (...of) => Effect.map(service.claim(...of), (claim) => ({ ...claim, owner })),
    commit: (of, claim, { seen: ids, ...changes }) =>
      Effect.tap(service.commit(of, claim, { ...changes, seen: undefined }), () =>
        Effect.sync(() => {
          if (ids !== undefined) seenOf(claim).add(ids)
          onCommit?.({ ...changes, seen: ids })
        })
      ),
    seenIds: (at, ranges) => Effect.sync(() => seenOf(at).within(ranges))
  })
}
