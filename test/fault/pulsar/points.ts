// The named points of relays to Pulsar and of consumers.
import type { Patch } from "../harness/patched-copy.ts"
import * as Points from "../harness/points.ts"

/** What a process under test runs. */
export type Role = "relay" | "consumer"
/** A point of a role. They are in the order in which a process reaches them. */
export interface Point extends Points.Point {
  readonly role: Role
}

const channel = "src/pulsar/relay/channel.ts"
const lane = "src/pulsar/relay/lane.ts"
const subscription = "src/subscription/subscription.ts"
const once = "src/postgres/subscription/once.ts"

const { afterWriting, greed, reached } = Points

type At = Omit<Patch, "replace"> & { readonly name: string; readonly often: number }
const before = (role: Role, at: At, wrap: (call: string) => string = (call) => call): Point => ({
  ...at,
  role,
  replace: `${wrap(reached(at.name))}\n${at.find}`
})
const after = (role: Role, at: At, wrap: (call: string) => string = (call) => call): Point => ({
  ...at,
  role,
  replace: `${at.find}${wrap(reached(at.name))}\n`
})

/** Points of a process that relays. */
export const relayPoints: ReadonlyArray<Point> = [
  after("relay", { name: "outbox read", file: lane, find: "      stream.push(following)\n", often: 3 }),
  after("relay", { name: "name taken", file: channel, find: "      this.producer = producer\n", often: 3 }),
  after("relay", {
    name: "topic read",
    file: channel,
    find: "      const found = await this.host.inTurn(() => this.connect(isCurrent))\n",
    often: 3
  }),
  before("relay", {
    name: "before sending",
    file: channel,
    find: "    const sent = producer.send(",
    often: 60
  }),
  after(
    "relay",
    { name: "message sent", file: channel, find: "    void this.outcome(item, sent, era)\n", often: 60 },
    afterWriting
  ),
  before("relay", {
    name: "receipt came",
    file: channel,
    find: "      if (era === this.era) this.received(item, receipt)\n",
    often: 60
  }),
  before("relay", {
    name: "places kept",
    file: lane,
    find: "      this.places.clear()\n      this.parked = []\n",
    often: 3
  }),
  before("relay", {
    name: "position moved",
    file: lane,
    find: "      for (const name of this.positions.keys()) this.recordedReasons.delete(name)\n",
    often: 3
  })
]

/** Points of a process that consumes. */
export const consumerPoints: ReadonlyArray<Point> = [
  before("consumer", {
    name: "message received",
    file: subscription,
    find: "    const decoded = yield* decode(subscription, consumer, message)\n    if (decoded === undefined) return true\n",
    often: 60
  }),
  before("consumer", { name: "message marked", file: once, find: "        yield* use(tx)\n", often: 60 }),
  before("consumer", {
    name: "effect written",
    file: once,
    find: '        return "handled" as const\n',
    often: 60
  }),
  before(
    "consumer",
    {
      name: "commit sent",
      file: once,
      find: '      if (exit.value === "handled") yield* commit(tx)\n',
      often: 60
    },
    afterWriting
  ),
  before("consumer", {
    name: "committed",
    file: once,
    find: "      held.lost = false\n      return exit.value\n",
    often: 60
  }),
  before("consumer", {
    name: "before acknowledging",
    file: subscription,
    find: "    waiting = []\n    return messages.length === 0",
    often: 6
  }),
  after("consumer", {
    name: "given back",
    file: subscription,
    find: "    yield* consumer.negativeAcknowledge([message])\n",
    often: 1
  })
]

/** All points, and what else a run's steps need. */
export const points: ReadonlyArray<Patch> = [...relayPoints, ...consumerPoints, greed]

/** Batches begin after fewer messages, and for fewer that wait: as often as connections come and go, none would begin otherwise. */
export const earlyBatches: ReadonlyArray<Patch> = [
  { file: channel, find: "export const maxInFlight = 1_000\n", replace: "export const maxInFlight = 40\n" },
  { file: channel, find: "const batchBacklog = 100\n", replace: "const batchBacklog = 4\n" }
]
