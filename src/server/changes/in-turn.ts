// Lets a few asynchronous functions run at once, and others wait. Pure.

/** Runs a function when it is its turn. */
export type InTurn = <A>(run: () => Promise<A>) => Promise<A>

/** Lets at most `most` functions run at the same time, in the order in which they came. */
export const inTurn = (most: number): InTurn => {
  let running = 0
  const waiting: Array<() => void> = []
  return async (run) => {
    if (running >= most) await new Promise<void>((go) => waiting.push(go))
    else running++
    try {
      return await run()
    } finally {
      const next = waiting.shift()
      if (next === undefined) running--
      else next()
    }
  }
}
