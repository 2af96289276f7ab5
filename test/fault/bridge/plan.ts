// Which faults a run has, in which order, from its seed. It does none of them.
import { type Random, randomOf } from "../../support/random.ts"
import { type TransportName, transports } from "../../support/pulsar.ts"
import type { Point } from "../harness/points.ts"
import { points } from "./points.ts"

/** What is done to the bridge, or to what it joins; by which transport the process that it is done to reaches Pulsar. */
export type Step = { readonly transport: TransportName } & (
  | { readonly kind: "kill"; readonly point: string; readonly nth: number }
  | { readonly kind: "killAtRandom"; readonly afterMs: number }
  /** SIGSTOP at a point, until others have done all its work. */
  | { readonly kind: "zombie"; readonly point: string; readonly nth: number }
  /** Both processes are killed, and the broker forgets what producers sent. */
  | { readonly kind: "forget" }
  /** Every connection to Pulsar is cut. */
  | { readonly kind: "cut" }
  | { readonly kind: "kafka" | "pulsar"; readonly downMs: number }
)
export type Kind = Step["kind"]

/** Every so many steps another fault than a kill at a point. */
const cycle = (
  "kill cut kill killAtRandom kill pulsar kill zombie kill killAtRandom " +
  "kill kafka kill forget kill killAtRandom kill cut kill kill"
).split(" ") as ReadonlyArray<Kind>

const shuffled = (random: Random, list: ReadonlyArray<Point>) =>
  list
    .map((point) => [random.next(), point] as const)
    .toSorted(([a], [b]) => a - b)
    .map(([, point]) => point)

/** So many steps; every point once before any comes again. */
export const planOf = (seed: number, count: number, named = true): ReadonlyArray<Step> => {
  const random = randomOf(seed)
  let left: ReadonlyArray<Point> = []
  const next = () => {
    if (left.length === 0) left = shuffled(random, points)
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
