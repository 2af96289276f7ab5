// The port of what keeps a log small, for logs that don't do it themselves: compaction and retention. It decides no policy.
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { LogError } from "./log.ts"

/** When to clean what. */
export interface CleanOptions {
  /** Only these topics. Default: all. */
  readonly topics?: ReadonlyArray<string>
  /** A partition of a compacted topic is compacted when more than this share of its bytes came since the last time. Default 0.5. */
  readonly dirtyShare?: number
  /** How long a deletion is kept, from the compaction that meets it first, so that readers that are under way see it. Default 24 hours. */
  readonly deletionsMs?: number
}
/** What was cleaned. */
export interface Cleaned {
  /** Records that newer ones of their keys made superfluous, and forgotten deletions. */
  readonly compacted: number
  /** Records that were older than their topic's retention. */
  readonly expired: number
}

/** Compacts, and deletes what is older than its topic's retention. */
export class LogCleaner extends Context.Service<
  LogCleaner,
  {
    /** Cleans once. Readers and writers go on; of several cleaners at once one works on a topic, and the others pass it by. */
    readonly clean: (options?: CleanOptions) => Effect.Effect<Cleaned, LogError>
  }
>()("millrace/LogCleaner") {}
