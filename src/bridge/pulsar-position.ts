// The position of a message in a partition on Pulsar, its order, and its form as text. Pure.

/** Where a message is in one partition on Pulsar. */
export interface PulsarPosition {
  readonly ledger: number
  readonly entry: number
  /** The message's index in its batch; -1 if it was not sent in a batch. */
  readonly batch: number
  readonly batchSize: number
}

/** Compares two positions by their order in the partition: negative, zero or positive, as for `sort`. */
export const comparePositions = (a: PulsarPosition, b: PulsarPosition): number =>
  a.ledger - b.ledger || a.entry - b.entry || Math.max(a.batch, 0) - Math.max(b.batch, 0)
/** Writes a position as text for metadata and headers, `ledger:entry:batch:batchSize`. */
export const formatPosition = ({ batch, batchSize, entry, ledger }: PulsarPosition): string =>
  `${ledger}:${entry}:${batch}:${batchSize}`
/** Reads what `formatPosition` wrote; undefined if the text is not a position. */
export const parsePosition = (text: string): PulsarPosition | undefined => {
  const found = /^(\d+):(\d+):(-?\d+):(\d+)$/.exec(text)
  if (found === null) return undefined
  const [ledger = 0, entry = 0, batch = -1, batchSize = 1] = found.slice(1).map(Number)
  return { ledger, entry, batch, batchSize }
}
