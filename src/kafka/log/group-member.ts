// A member of a Kafka consumer group on the wire: joins, says that it lives, leaves. Commits no offset: positions are the database's.
import { setTimeout as sleep } from "node:timers/promises"
import { type Client, isLost } from "../protocol/client.ts"
import { balance, type Member as Other } from "./assignor.ts"
import type { Broker } from "../protocol/kafkajs.ts"
import { typeOf } from "../protocol/errors.ts"
import { hasEnded, type Life, ownLife } from "./process-identity.ts"
import { Reader, Writer } from "../protocol/wire.ts"

/** Of the group's protocol, which no other consumer speaks: the brokers refuse one that joins by mistake. */
const protocol = "millrace"
const memberVersion = 1

/** How long a member may be silent where nothing is said. */
export const defaultSessionMs = 10_000

/** What a member is told. */
export interface Share {
  readonly partitions: ReadonlyArray<number>
  /** The number of this sharing. Higher than all that members of the group know of, and than the leader's clock a while ago. */
  readonly generation: number
}
/** What a heartbeat tells: go on, join again, or everything that was had went to others. */
export type Beat = "fine" | "rejoin" | "lost"

const lostTypes = /^(UNKNOWN_MEMBER_ID|ILLEGAL_GENERATION|FENCED_INSTANCE_ID)$/
const elsewhere = /^(NOT_COORDINATOR_FOR_GROUP|GROUP_COORDINATOR_NOT_AVAILABLE|GROUP_LOAD_IN_PROGRESS)$/

/** Whether a member cannot be in the group any more as it was. */
export const isForgotten = (cause: unknown) => lostTypes.test(typeOf(cause))
/** Whether joining may succeed later. */
export const isPassing = (cause: unknown) =>
  isLost(cause) || elsewhere.test(typeOf(cause)) || typeOf(cause) === "REBALANCE_IN_PROGRESS"

/** How often a member that joins looks whether others have ended, in milliseconds. */
const lookMs = 200

/** What a member tells of itself; a life since members tell it. */
type Told = Omit<Other, "id"> & { readonly life?: Life }
// the consumer protocol's frame, which the brokers' tools read: version, topics or partitions, the user's data
const frame = (topic: string) => new Writer().i16(memberVersion).i32(1).text(topic)
const framed = (writer: Writer, value: unknown) => {
  const bytes = Buffer.from(JSON.stringify(value))
  return writer.i32(bytes.length).raw(bytes)
}
const metadataOf = (topic: string, member: Told) => framed(frame(topic), member).i32(0).bytes()
const assignmentOf = (topic: string, share: Share) => {
  const writer = frame(topic)
  return framed(
    writer.array(share.partitions, (partition) => writer.i32(partition)),
    share
  ).bytes()
}
/** The user's data behind one topic's name, and its partitions where there are some. */
const dataOf = (bytes: Buffer, withPartitions: boolean): unknown => {
  if (bytes.length === 0) return undefined
  const reader = new Reader(bytes)
  // version, and the number of topics
  reader.skip(6)
  reader.text()
  if (withPartitions) reader.array(() => reader.i32())
  return JSON.parse(reader.bytes(reader.i32()).toString("utf8"))
}

/** One member. Calls are made one after another. */
export class Member {
  private readonly client: Client
  private readonly group: string
  private readonly topic: string
  private readonly sessionMs: number
  /** How long others wait for a member that must join again; it only has to hear of it. */
  private readonly rebalanceMs: number
  private id = ""
  private round = -1
  private broker: Broker | undefined
  private node = -1
  private joining: Promise<unknown> = Promise.resolve()

  constructor(client: Client, topic: string, group: string) {
    this.client = client
    this.topic = topic
    // members of one group that read different topics would have to know each other's
    this.group = `${group}/${topic}`
    this.sessionMs = client.options.sessionMs ?? defaultSessionMs
    this.rebalanceMs = Math.max(this.sessionMs, 10_000)
  }

  private async coordinator(): Promise<Broker> {
    if (this.broker?.isConnected() === true) return this.broker
    this.drop()
    const { coordinator } = await this.client.any((broker) =>
      broker.findGroupCoordinator({ groupId: this.group, coordinatorType: 0 })
    )
    this.client.learn(coordinator.nodeId, coordinator.host, coordinator.port)
    this.node = coordinator.nodeId
    // of its own, for the broker answers a join only when all have joined
    return (this.broker = await this.client.connect(coordinator))
  }
  private async call<A>(run: (broker: Broker) => Promise<A>, ms: number): Promise<A> {
    const broker = await this.coordinator()
    try {
      return await this.client.within(broker, run(broker), ms)
    } catch (cause) {
      if (elsewhere.test(typeOf(cause)) || isLost(cause)) this.drop()
      throw cause
    }
  }
  /** Forgets that it was a member: the next join is a new one's. */
  forget() {
    this.id = ""
  }
  drop() {
    if (this.broker !== undefined) this.client.drop(this.broker)
    this.broker = undefined
  }

  /** Joins, or joins again with what it has; resolves when all members have. Rejects with the driver's errors. */
  join(owned: ReadonlyArray<number>, generation: number): Promise<Share> {
    const joined = this.joinOnce(owned, generation)
    this.joining = joined.catch(() => undefined)
    return joined
  }
  private async joinOnce(owned: ReadonlyArray<number>, generation: number): Promise<Share> {
    const { group, rebalanceMs, sessionMs, topic } = this
    const watch = new AbortController()
    if (this.id === "") void this.buryDead(await this.others(), watch.signal)
    const joined = await this.call(
      (broker) =>
        broker.joinGroup({
          groupId: group,
          sessionTimeout: sessionMs,
          rebalanceTimeout: rebalanceMs,
          memberId: this.id,
          protocolType: "consumer",
          groupProtocols: [{ name: protocol, metadata: metadataOf(topic, { owned, generation, life: ownLife }) }]
        }),
      rebalanceMs + sessionMs + this.client.requestMs
    ).finally(() => watch.abort())
    this.id = joined.memberId
    this.round = joined.generationId
    const groupAssignment = joined.leaderId === joined.memberId ? await this.assign(joined.members) : []
    const { memberAssignment } = await this.call(
      (broker) => broker.syncGroup({ groupId: group, generationId: this.round, memberId: this.id, groupAssignment }),
      rebalanceMs + this.client.requestMs
    )
    return (dataOf(memberAssignment, true) as Share | undefined) ?? { partitions: [], generation }
  }

  /** The members that there are, with their processes. None where the group shares anew: then brokers keep what members said. */
  private async others(): Promise<ReadonlyArray<{ readonly memberId: string; readonly life: Life }>> {
    try {
      const { groups } = await this.call((broker) => broker.describeGroups({ groupIds: [this.group] }), 2_000)
      return groups
        .flatMap(({ members }) => members)
        .flatMap(({ memberId, memberMetadata }) => {
          const { life } = (dataOf(memberMetadata, false) as Told | undefined) ?? {}
          return life === undefined ? [] : [{ memberId, life }]
        })
    } catch {
      return []
    }
  }
  /**
   * Lets members leave whose process was killed on this machine: else the group would wait for them until their sessions end. One that is
   * being killed may take a while to end, so they are looked at until this one has joined. What they had under way is fenced by the
   * claims that follow. Fails never: without it joining only takes longer.
   */
  private async buryDead(others: ReadonlyArray<{ readonly memberId: string; readonly life: Life }>, over: AbortSignal) {
    let living = others
    while (living.length > 0 && !over.aborted) {
      const dead = living.filter(({ life }) => hasEnded(life))
      living = living.filter((one) => !dead.includes(one))
      for (const { memberId } of dead) {
        // the join holds the member's own connection
        await this.client
          .use(this.node, "bury", (broker) => broker.leaveGroup({ groupId: this.group, memberId }), 2_000)
          .catch(() => undefined)
      }
      await sleep(lookMs, undefined, { signal: over }).catch(() => undefined)
    }
  }

  private async assign(members: ReadonlyArray<{ readonly memberId: string; readonly memberMetadata: Buffer }>) {
    const { leaders } = await this.client.topic(this.topic)
    const others = members.map(({ memberId, memberMetadata }): Other => {
      const { generation, owned } = dataOf(memberMetadata, false) as Told
      return { id: memberId, owned, generation }
    })
    // Kafka's own generation begins again at 1 when a group was empty for a while, and the store refuses an older one
    const generation = Math.max(Date.now(), ...others.map((other) => other.generation + 1))
    return [...balance(others, leaders.length)].map(([memberId, partitions]) => ({
      memberId,
      memberAssignment: assignmentOf(this.topic, { partitions, generation })
    }))
  }

  /** Says that it lives. Rejects only where nobody could be told. */
  async beat(): Promise<Beat> {
    try {
      await this.call(
        (broker) => broker.heartbeat({ groupId: this.group, groupGenerationId: this.round, memberId: this.id }),
        this.sessionMs
      )
      return "fine"
    } catch (cause) {
      if (isForgotten(cause)) return "lost"
      if (typeOf(cause) === "REBALANCE_IN_PROGRESS") return "rejoin"
      throw cause
    }
  }

  /** Leaves at once, so that the others need not wait for its session to end. Never rejects. */
  async leave(): Promise<void> {
    try {
      if (this.id !== "")
        await this.call((broker) => broker.leaveGroup({ groupId: this.group, memberId: this.id }), 2_000)
    } catch {
      // its session ends by itself
    } finally {
      this.drop()
    }
  }
}
