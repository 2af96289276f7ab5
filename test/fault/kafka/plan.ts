// The plan of a run: which faults happen in which order, all of it from the seed.
import { randomOf } from "../../support/random.ts"
import { drawn, grouped, many, shuffled } from "../harness/schedule.ts"
import { projectorPoints, relayPoints } from "./failpoints.ts"
import { type Loss, losses } from "./commit-proxy.ts"

/** One fault, or a few that belong together. */
export type Step =
  /** Processes that run projections are killed, each at its point. */
  | { readonly kind: "killAtPoints"; readonly points: ReadonlyArray<{ readonly name: string; readonly nth: number }> }
  | { readonly kind: "killAtRandom"; readonly role: "projections" | "relay"; readonly afterMs: number }
  | { readonly kind: "killRelayAtPoint"; readonly name: string; readonly nth: number }
  /** A process joins the group and leaves it again. */
  | { readonly kind: "joinAndLeave"; readonly signal: "SIGTERM" | "SIGKILL" }
  /** A process is stopped before a commit until others have taken over, and then continues. */
  | { readonly kind: "zombie"; readonly nth: number }
  /** Two processes claim a partition, and the first one commits after the second claim. */
  | { readonly kind: "overlap" }
  /** A relay is stopped at a point until another one has taken its lane, and then continues. */
  | { readonly kind: "relayZombie"; readonly name: string }
  /** Two relays take the same lane until each has been fenced so many times. */
  | { readonly kind: "relayFight"; readonly times: number }
  /** PostgreSQL ends sessions that execute a commit; with `held` commits wait for a lock meanwhile. */
  | { readonly kind: "endBackends"; readonly held: boolean }
  /** The replies to commits are lost. */
  | { readonly kind: "loseReplies"; readonly losses: ReadonlyArray<Loss> }
  | { readonly kind: "crashPostgres"; readonly immediate: boolean }
  | { readonly kind: "crashKafka" }

/** How often each fault happens. A fault that is left out does not happen. */
export interface Counts {
  /** How many processes are killed at points at the same time. Default 2. */
  readonly together?: number
  readonly projectorKills?: number
  readonly relayKills?: number
  readonly joins?: number
  readonly zombies?: number
  readonly overlaps?: number
  readonly relayZombies?: number
  readonly relayFights?: number
  readonly backends?: number
  readonly replies?: number
  readonly postgresCrashes?: number
  readonly kafkaCrashes?: number
}

/** What `npm test` asks for: every fault, the frequent ones a few times. */
export const short = {
  projectorKills: 4,
  relayKills: 2,
  joins: 2,
  zombies: 1,
  overlaps: 1,
  relayZombies: 1,
  relayFights: 1,
  backends: 4,
  replies: 5,
  postgresCrashes: 1,
  kafkaCrashes: 1
} satisfies Counts
/** What `npm run fault` asks for, and `npm test` with MILLRACE_SIZE=long. */
export const standard = {
  projectorKills: 20,
  relayKills: 10,
  joins: 10,
  zombies: 5,
  overlaps: 1,
  relayZombies: 2,
  relayFights: 1,
  backends: 20,
  replies: 10,
  postgresCrashes: 1,
  kafkaCrashes: 1
} satisfies Counts
/** The counts of a long run: `count` kills, two thirds of them of projections and one of relays, and the other faults in proportion. */
export const cycles = (count: number): Counts => {
  const scale = (n: number) => Math.max(1, Math.round((n * count) / 30))
  return {
    together: 4,
    projectorKills: Math.round((count * 2) / 3),
    relayKills: count - Math.round((count * 2) / 3),
    joins: scale(4),
    zombies: scale(3),
    overlaps: scale(0.5),
    relayZombies: scale(1),
    relayFights: scale(0.5),
    backends: scale(8),
    replies: scale(6),
    postgresCrashes: scale(0.5),
    kafkaCrashes: scale(0.3)
  }
}

/** Steps for two hands that work at the same time: the left one on projections and the database, the right one on relays and the broker. */
export interface Plan {
  readonly left: ReadonlyArray<Step>
  readonly right: ReadonlyArray<Step>
}

/** The plan of a seed. A quarter of the kills are at random, the others at named points. */
export const planOf = (seed: number, counts: Counts): Plan => {
  const random = randomOf(seed)
  const atRandom = (role: "projections" | "relay") => (): Step => ({
    kind: "killAtRandom",
    role,
    afterMs: random.int(0, 400)
  })
  const kills = counts.projectorKills ?? 0
  const anywhere = Math.floor(kills / 4)
  const relayKills = counts.relayKills ?? 0
  const relayAnywhere = Math.floor(relayKills / 4)
  const left = [
    ...many(anywhere, atRandom("projections")),
    ...grouped(drawn(projectorPoints, kills - anywhere, random), counts.together ?? 2).map((points): Step => ({
      kind: "killAtPoints",
      points
    })),
    ...many(Math.ceil((counts.joins ?? 0) / 2), (): Step => ({
      kind: "joinAndLeave",
      signal: random.chance(0.5) ? "SIGTERM" : "SIGKILL"
    })),
    ...many(counts.zombies, (): Step => ({ kind: "zombie", nth: random.int(1, 4) })),
    ...many(counts.overlaps, (): Step => ({ kind: "overlap" })),
    ...many(counts.backends, (): Step => ({ kind: "endBackends", held: random.chance(0.7) })),
    ...grouped(
      many(counts.replies, (i) => losses[i % losses.length]!),
      5
    ).map((some): Step => ({ kind: "loseReplies", losses: some })),
    ...many(counts.postgresCrashes, (): Step => ({ kind: "crashPostgres", immediate: random.chance(0.5) }))
  ]
  const right = [
    ...many(relayAnywhere, atRandom("relay")),
    ...drawn(relayPoints, relayKills - relayAnywhere, random).map(({ name, nth }): Step => ({
      kind: "killRelayAtPoint",
      name,
      nth
    })),
    ...many(counts.relayZombies, (): Step => ({ kind: "relayZombie", name: random.pick(relayPoints).name })),
    ...many(counts.relayFights, (): Step => ({ kind: "relayFight", times: random.int(2, 5) })),
    ...many(counts.kafkaCrashes, (): Step => ({ kind: "crashKafka" }))
  ]
  return { left: shuffled(left, random), right: shuffled(right, random) }
}
