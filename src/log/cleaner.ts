// The log-cleaner port: compaction and retention, for logs that do not clean themselves.
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { LogError } from "./log.ts"

/** Which topics to clean, and when a partition is worth compacting. */
export interface CleanOptions {
  /** Clean only these topics. Default: all. */
  readonly topics?: ReadonlyArray<string>
  /** A partition of a compacted topic is compacted once more than this share of its bytes is newer than its last compaction. Default 0.5. */
  readonly dirtyShare?: number
  /**
   * How long a deletion (a null value) is kept after the first compaction that finds it, so that a slow reader still sees it. Milliseconds;
   * default 24 hours.
   */
  readonly deletionsMs?: number
}
/** How many records a cleaning removed. */
export interface Cleaned {
  /** Records with a newer record of the same key, and deletions that were kept long enough. */
  readonly compacted: number
  /** Records older than their topic's retention. */
  readonly expired: number
}

/** Compacts compacted topics, and deletes records that are older than their topic's retention. */
export class LogCleaner extends Context.Service<
  LogCleaner,
  {
    /** Cleans each topic once. Readers and writers are not blocked. Only one cleaner works on a topic at a time; others skip it. */
    readonly clean: (options?: CleanOptions) => Effect.Effect<Cleaned, LogError>
  }
>()("millrace/LogCleaner") {}
