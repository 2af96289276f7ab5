// The plan of a run: which faults happen in which order, all of it from the seed.
import { randomOf } from "../../support/random.ts"
import { drawn, many, shuffled } from "../harness/schedule.ts"
import { consumerPoints, relayPoints, type Role } from "./points.ts"

/** One fault, or a few that belong together. */
export type Step =
  | { readonly kind: "killAtPoint"; readonly role: Role; readonly name: string; readonly nth: number }
  | { readonly kind: "killAtRandom"; readonly role: Role; readonly afterMs: number }
  /** A relay is stopped at a point until another one has taken over, and then continues. */
  | { readonly kind: "relayZombie"; readonly name: string; readonly nth: number }
  /** Two relays take the same lane. */
  | { readonly kind: "relayFight" }
  | { readonly kind: "killBroker" }
  /** All connections to Pulsar are cut. */
  | { readonly kind: "cut"; readonly times: number }
  /** A relay is killed after it sent a message, and Pulsar forgets the sequence ids of producers. */
  | { readonly kind: "forget"; readonly nth: number }
  /** Pulsar unloads the topics, which moves them to another broker in a cluster. */
  | { readonly kind: "unload" }
  /** A message is published that is too large for every topic. */
  | { readonly kind: "poison" }
  | { readonly kind: "crashPostgres"; readonly immediate: boolean }
  /** A consumer with slow handlers. */
  | { readonly kind: "slow" }
  /** A consumer of whose handlers many fail, so that many messages are redelivered. */
  | { readonly kind: "storm" }
  /** A consumer is stopped for a while. */
  | { readonly kind: "consumerStop" }

/** How often each fault happens. A fault that is left out does not happen. */
export interface Counts {
  readonly relayKills?: number
  readonly consumerKills?: number
  readonly zombies?: number
  readonly fights?: number
  readonly brokers?: number
  readonly cuts?: number
  readonly forgets?: number
  readonly unloads?: number
  readonly poisons?: number
  readonly postgresCrashes?: number
  readonly slow?: number
  readonly storms?: number
  readonly consumerStops?: number
}
/** What `npm test` asks for: every fault once. */
export const short = {
  relayKills: 1,
  consumerKills: 1,
  zombies: 1,
  fights: 1,
  brokers: 1,
  cuts: 1,
  forgets: 1,
  unloads: 1,
  poisons: 1,
  slow: 1,
  storms: 1
} satisfies Counts
/** What `npm run fault -- pulsar` asks for, and `npm test` with MILLRACE_SIZE=long. */
export const standard = {
  relayKills: 5,
  consumerKills: 3,
  zombies: 1,
  fights: 1,
  brokers: 1,
  cuts: 1,
  forgets: 1,
  unloads: 1,
  poisons: 1,
  slow: 1,
  storms: 1
} satisfies Counts
/** The counts of a long run: `count` kills, two thirds of them of relays, and the other faults in proportion. */
export const cycles = (count: number): Counts => {
  const scale = (n: number) => Math.max(1, Math.round((n * count) / 30))
  const relayKills = Math.round((count * 2) / 3)
  return {
    relayKills,
    consumerKills: count - relayKills,
    zombies: scale(2),
    fights: scale(1),
    brokers: scale(0.7),
    cuts: scale(2),
    forgets: scale(2),
    unloads: scale(2),
    poisons: scale(2),
    postgresCrashes: scale(0.5),
    slow: scale(1),
    storms: scale(1),
    consumerStops: scale(1)
  }
}

/** Steps for two hands that work at the same time: the left one on consumers, the right one on relays, the broker and the database. */
export interface Plan {
  readonly left: ReadonlyArray<Step>
  readonly right: ReadonlyArray<Step>
}

/** The plan of a seed. A quarter of the kills are at random, the others at named points. */
export const planOf = (seed: number, counts: Counts): Plan => {
  const random = randomOf(seed)
  const kills = (role: Role, count = 0): ReadonlyArray<Step> => {
    const anywhere = Math.floor(count / 4)
    const points = role === "relay" ? relayPoints : consumerPoints
    return [
      ...many(anywhere, (): Step => ({ kind: "killAtRandom", role, afterMs: random.int(0, 400) })),
      ...drawn(points, count - anywhere, random).map(({ name, nth }): Step => ({
        kind: "killAtPoint",
        role,
        name,
        nth
      }))
    ]
  }
  const left = [
    ...kills("consumer", counts.consumerKills),
    ...many(counts.slow, (): Step => ({ kind: "slow" })),
    ...many(counts.storms, (): Step => ({ kind: "storm" })),
    ...many(counts.consumerStops, (): Step => ({ kind: "consumerStop" }))
  ]
  const right = [
    ...kills("relay", counts.relayKills),
    ...many(counts.zombies, (): Step => ({
      kind: "relayZombie",
      name: random.pick(relayPoints).name,
      nth: random.int(1, 3)
    })),
    ...many(counts.fights, (): Step => ({ kind: "relayFight" })),
    ...many(counts.brokers, (): Step => ({ kind: "killBroker" })),
    ...many(counts.cuts, (): Step => ({ kind: "cut", times: random.int(1, 3) })),
    ...many(counts.forgets, (): Step => ({ kind: "forget", nth: random.int(1, 60) })),
    ...many(counts.unloads, (): Step => ({ kind: "unload" })),
    ...many(counts.poisons, (): Step => ({ kind: "poison" })),
    ...many(counts.postgresCrashes, (): Step => ({ kind: "crashPostgres", immediate: random.chance(0.5) }))
  ]
  return { left: shuffled(left, random), right: shuffled(right, random) }
}
