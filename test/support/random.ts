// Random inputs from a seed that tests print. MILLRACE_TEST_SEED sets the seed, to repeat a failure.

/** A source of random values. */
export interface Random {
  /** From 0 up to 1, not included. */
  readonly next: () => number
  /** A whole number, both ends included. */
  readonly int: (low: number, high: number) => number
  readonly pick: <A>(values: ReadonlyArray<A>) => A
  /** True with this probability. */
  readonly chance: (probability: number) => boolean
}

/** The seed of this run. */
export const seed = Number(process.env["MILLRACE_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31))

/** A mulberry32 generator: equal seeds give equal values. */
export const randomOf = (number: number): Random => {
  let state = number
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
  const int = (low: number, high: number) => low + Math.floor(next() * (high - low + 1))
  return {
    next,
    int,
    pick: (values) => values[int(0, values.length - 1)]!,
    chance: (probability) => next() < probability
  }
}
