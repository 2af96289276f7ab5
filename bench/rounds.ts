// Runs of several things in turn, and the medians of their figures. No I/O.

/** Figures of one run: numbers, whether something held, and groups of those. Texts and lists are not compared. */
export type RunFigures = { readonly [name: string]: unknown }

/** The median; of an even number of values the lower one in the middle. NaN if there are none. */
export const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? Number.NaN

/** The order of a round. Every other round begins with the last one, so that a machine that becomes slower favours none. */
export const orderOf = <A>(members: ReadonlyArray<A>, round: number): ReadonlyArray<A> =>
  round % 2 === 0 ? members : members.toReversed()

const isFigures = (value: unknown): value is RunFigures =>
  typeof value === "object" && value !== null && !Array.isArray(value)
/**
 * The median of each figure over runs of the same form; what held has to hold in each. Figures that only some runs have are those runs' median. Of one
 * run, its figures. The medians of parts need not add up to that of their sum.
 */
export const medians = (runs: ReadonlyArray<RunFigures>): RunFigures => {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run)))]
  return Object.fromEntries(
    names.flatMap((name): ReadonlyArray<readonly [string, unknown]> => {
      const values = runs.map((run) => run[name]).filter((value) => value !== undefined)
      if (values.every((value) => typeof value === "number")) return [[name, median(values)]]
      if (values.every((value) => typeof value === "boolean")) return [[name, values.every(Boolean)]]
      if (values.every(isFigures)) return [[name, medians(values)]]
      return runs.length === 1 ? [[name, values[0]]] : []
    })
  )
}
/** `a / b` of each pair of runs, to two decimals. The machine's speed moves from minute to minute, and a pair less. */
export const pairwise = (a: ReadonlyArray<number>, b: ReadonlyArray<number>): ReadonlyArray<number> =>
  a.slice(0, b.length).map((value, i) => Math.round((value / b[i]!) * 100) / 100)

/**
 * Measures each member so many times, in turn. Returns the medians by member (`figures`) and all runs. Nothing runs at the same time.
 */
export const inTurn = async <Member extends string, Run extends RunFigures>(
  members: ReadonlyArray<Member>,
  times: number,
  measure: (member: Member) => Promise<Run>
): Promise<{
  readonly figures: Readonly<Record<string, RunFigures>>
  readonly runs: Readonly<Record<Member, ReadonlyArray<Run>>>
}> => {
  const runs = Object.fromEntries(members.map((member) => [member, []])) as unknown as Record<Member, Array<Run>>
  for (let round = 0; round < times; round++)
    for (const member of orderOf(members, round)) runs[member].push(await measure(member))
  return { figures: Object.fromEntries(members.map((member) => [member, medians(runs[member])])), runs }
}
