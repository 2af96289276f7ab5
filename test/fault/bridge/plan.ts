// The plan of a run: which faults happen in which order, all of it from the seed.
import { randomOf } from "../../support/random.ts"
import { type TransportName, transports } from "../../support/pulsar.ts"
import type { Point } from "../harness/points.ts"
import { shuffled } from "../harness/schedule.ts"
import { points } from "./points.ts"

/** One fault, of a process of the bridge or of a broker. `transport` is how the process reaches Pulsar. */
export type Step = { readonly transport: TransportName } & (
  | { readonly kind: "kill"; readonly point: string; readonly nth: number }
  | { readonly kind: "killAtRandom"; readonly afterMs: number }
  /** A process is stopped at a point until the other one has done all its work, and then continues. */
  | { readonly kind: "zombie"; readonly point: string; readonly nth: number }
  /** Both processes are killed, and Pulsar forgets the sequence ids of their producers. */
  | { readonly kind: "forget" }
  /** Every connection to Pulsar is cut. */
  | { readonly kind: "cut" }
  /** A broker is killed, and started again later. */
  | { readonly kind: "kafka" | "pulsar"; readonly downMs: number }
)
/** The kinds of faults. */
export type FaultKind = Step["kind"]

/** The kinds of the steps of a run, again and again: mostly kills at named points. */
const cycle = (
  "kill cut kill killAtRandom kill pulsar kill zombie kill killAtRandom " +
  "kill kafka kill forget kill killAtRandom kill cut kill kill"
).split(" ") as ReadonlyArray<FaultKind>

/** Plans so many steps. No point comes a second time before all have come once. With `named` false kills are at random moments only. */
export const planOf = (seed: number, count: number, named = true): ReadonlyArray<Step> => {
  const random = randomOf(seed)
  let left: ReadonlyArray<Point> = []
  const next = () => {
    if (left.length === 0) left = shuffled(points, random)
    const [point] = left
    left = left.slice(1)
    return { point: point!.name, nth: random.int(1, point!.often) }
  }
  return Array.from({ length: count }, (_, i): Step => {
    const transport = random.pick(transports)
    const kind = cycle[i % cycle.length]!
    if (kind === "forget" || kind === "cut") return { transport, kind }
    if (kind === "kafka" || kind === "pulsar") return { transport, kind, downMs: random.int(0, 1_500) }
    if (kind === "killAtRandom" || !named) return { transport, kind: "killAtRandom", afterMs: random.int(0, 1_500) }
    return { transport, kind, ...next() }
  })
}
