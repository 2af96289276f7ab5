// How large the batches of a partition are: small while it keeps up, larger while it is far behind. Pure.
import type { Batch } from "../log/log.ts"

/** Bytes of values in a batch: of the first one, and of the largest. */
const bytes = { first: 1 << 20, most: 4 << 20 }
/** A partition is far behind if more of these batches wait. */
const far = 2

/**
 * The size of a partition's next batch. The first one is small, so that the first rows come soon; while more wait than two batches have, each
 * may be twice as large as the one before, up to 4 MiB: a row or a window that many events change is then written once for more of them.
 */
export class BatchSize {
  /** How many bytes of values the next batch may have. */
  maxBytes = bytes.first

  /** Notes a batch that was read. */
  note({ end, next, records }: Batch): void {
    this.maxBytes = end - next > far * records.length ? Math.min(bytes.most, this.maxBytes * 2) : bytes.first
  }
}
