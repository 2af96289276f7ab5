// What benchmarks share: figures of many times. It measures nothing.

/** The value below which a share `p` of ascending ones lies, to one decimal; 0 where there is none. */
export const percentile = (sorted: ReadonlyArray<number>, p: number): number =>
  Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0) * 10) / 10
