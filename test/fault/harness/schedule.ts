// Random choices from which the plans of runs are made. Everything follows from the seed.
import type { Random } from "../../support/random.ts"
import type { Point } from "./points.ts"

/** Makes `count` values; none if it is undefined. */
export const many = <A>(count: number | undefined, of: (i: number) => A): Array<A> =>
  Array.from({ length: count ?? 0 }, (_, i) => of(i))
/** The values in random order. */
export const shuffled = <A>(values: ReadonlyArray<A>, random: Random): Array<A> => {
  const left = [...values]
  return values.map(() => left.splice(random.int(0, left.length - 1), 1)[0]!)
}
/**
 * Draws `count` points in random order, none a second time before all have come once, and for each at which time a process is to be stopped
 * there.
 */
export const drawn = (points: ReadonlyArray<Pick<Point, "name" | "often">>, count: number, random: Random) => {
  const order = shuffled(points, random)
  return shuffled(
    many(count, (i) => order[i % order.length]!),
    random
  ).map(({ name, often }) => ({ name, nth: random.int(1, often) }))
}
/** Divides values into groups of `size` at most. */
export const grouped = <A>(values: ReadonlyArray<A>, size: number): Array<ReadonlyArray<A>> =>
  many(Math.ceil(values.length / size), (i) => values.slice(i * size, (i + 1) * size))
