// Percentiles of measured times.

/** The value below which a share `p` of ascending values lies, to one decimal; 0 if there are none. */
export const percentile = (sorted: ReadonlyArray<number>, p: number): number =>
  Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0) * 10) / 10
