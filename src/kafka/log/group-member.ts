// A member of a Kafka consumer group: joins, sends heartbeats and leaves. It commits no offsets; positions are kept in the database.
import { setTimeout as sleep } from "node:timers/promises"
import { type Broker, type Client, failureOf, isLost, Reader, Writer } from "../protocol/protocol.ts"
import { balance, type MemberState } from "./assignor.ts"
import { hasEnded, ownProcess, type ProcessIdentity } from "./process-identity.ts"

/** The name of the group's protocol. No other consumer uses it, so brokers refuse one that joins by mistake. */
const protocol = "millrace"
const memberVersion = 1

/** How long a member may be silent by default, in milliseconds. */
export const defaultSessionMs = 10_000

/** The partitions of one member. */
export interface GroupAssignment {
  readonly partitions: ReadonlyArray<number>
  /** The number of this assignment: higher than all that members of the group know, and at least the leader's clock in epoch milliseconds. */
  readonly generation: number
}
/** The answer to a heartbeat: go on, join again, or the membership is lost and other members have the partitions. */
export type HeartbeatAnswer = "fine" | "rejoin" | "lost"

const forgotten = /^(UNKNOWN_MEMBER_ID|ILLEGAL_GENERATION|FENCED_INSTANCE_ID)$/
const elsewhere = /^(NOT_COORDINATOR_FOR_GROUP|GROUP_COORDINATOR_NOT_AVAILABLE|GROUP_LOAD_IN_PROGRESS)$/

/** Whether the group no longer has the member, which must join as a new one. */
export const isForgotten = (cause: unknown) => forgotten.test(failureOf(cause).code)
/** Whether joining may succeed later. */
export const isPassing = (cause: unknown) =>
  isLost(cause) || elsewhere.test(failureOf(cause).code) || failureOf(cause).code === "REBALANCE_IN_PROGRESS"

/** How often a joining member checks whether others' processes have ended, in milliseconds. */
const lookMs = 200

/** The metadata that a member sends when it joins. Older versions send no `life`. */
type MemberMetadata = Omit<MemberState, "id"> & { readonly life?: ProcessIdentity }
// the consumer protocol's frame, which Kafka's tools can read: version, topics or partitions, the user's data
const frame = (topic: string) => new Writer().i16(memberVersion).i32(1).text(topic)
const framed = (writer: Writer, value: unknown) => {
  const bytes = Buffer.from(JSON.stringify(value))
  return writer.i32(bytes.length).raw(bytes)
}
const metadataOf = (topic: string, member: MemberMetadata) => framed(frame(topic), member).i32(0).bytes()
const assignmentOf = (topic: string, share: GroupAssignment) => {
  const writer = frame(topic)
  return framed(
    writer.array(share.partitions, (partition) => writer.i32(partition)),
    share
  ).bytes()
}
/** The user's data, which follows one topic's name and, in an assignment, its partitions. */
const dataOf = (bytes: Buffer, withPartitions: boolean): unknown => {
  if (bytes.length === 0) return undefined
  const reader = new Reader(bytes)
  // version, and the number of topics
  reader.skip(6)
  reader.text()
  if (withPartitions) reader.array(() => reader.i32())
  return JSON.parse(reader.bytes(reader.i32()).toString("utf8"))
}

/** A member and the process that it belongs to. */
interface MemberProcess {
  readonly memberId: string
  readonly life: ProcessIdentity
}
/** One member of a group. Its methods must not be called at the same time. */
export class GroupMember {
  private readonly client: Client
  private readonly group: string
  private readonly topic: string
  private readonly sessionMs: number
  /** How long the group waits for this member to join again. */
  private readonly rebalanceMs: number
  private id = ""
  /** Kafka's number of the group's present assignment. */
  private kafkaGeneration = -1
  private broker: Broker | undefined
  private node = -1
  private joining: Promise<unknown> = Promise.resolve()

  constructor(client: Client, topic: string, group: string) {
    this.client = client
    this.topic = topic
    // one Kafka group for each topic, because members that read different topics could not assign each other's partitions
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
    // a connection of its own: the broker answers a join only when all members have joined
    return (this.broker = await this.client.connect(coordinator))
  }
  private async call<A>(run: (broker: Broker) => Promise<A>, ms: number): Promise<A> {
    const broker = await this.coordinator()
    try {
      return await this.client.within(broker, run(broker), ms)
    } catch (cause) {
      if (elsewhere.test(failureOf(cause).code) || isLost(cause)) this.drop()
      throw cause
    }
  }
  /** Forgets its membership: it joins as a new member the next time. */
  forget() {
    this.id = ""
  }
  /** Closes its connection. */
  drop() {
    if (this.broker !== undefined) this.client.drop(this.broker)
    this.broker = undefined
  }

  /** Joins, or joins again with the partitions that it owns. Resolves when all members have joined. Rejects with `KafkaFailure`. */
  join(owned: ReadonlyArray<number>, generation: number): Promise<GroupAssignment> {
    const joined = this.joinOnce(owned, generation)
    this.joining = joined.catch(() => undefined)
    return joined
  }
  private async joinOnce(owned: ReadonlyArray<number>, generation: number): Promise<GroupAssignment> {
    const { group, rebalanceMs, sessionMs, topic } = this
    const watch = new AbortController()
    if (this.id === "") void this.removeDead(await this.others(), watch.signal)
    const joined = await this.call(
      (broker) =>
        broker.joinGroup({
          groupId: group,
          sessionTimeout: sessionMs,
          rebalanceTimeout: rebalanceMs,
          memberId: this.id,
          protocolType: "consumer",
          groupProtocols: [{ name: protocol, metadata: metadataOf(topic, { owned, generation, life: ownProcess }) }]
        }),
      rebalanceMs + sessionMs + this.client.requestMs
    ).finally(() => watch.abort())
    this.id = joined.memberId
    this.kafkaGeneration = joined.generationId
    const groupAssignment = joined.leaderId === joined.memberId ? await this.assign(joined.members) : []
    const { memberAssignment } = await this.call(
      (broker) =>
        broker.syncGroup({ groupId: group, generationId: this.kafkaGeneration, memberId: this.id, groupAssignment }),
      rebalanceMs + this.client.requestMs
    )
    return (dataOf(memberAssignment, true) as GroupAssignment | undefined) ?? { partitions: [], generation }
  }

  /** The group's members with their processes. Empty during a rebalance, when brokers do not return the members' metadata. */
  private async others(): Promise<ReadonlyArray<MemberProcess>> {
    try {
      const { groups } = await this.call((broker) => broker.describeGroups({ groupIds: [this.group] }), 2_000)
      return groups
        .flatMap(({ members }) => members)
        .flatMap(({ memberId, memberMetadata }) => {
          const { life } = (dataOf(memberMetadata, false) as MemberMetadata | undefined) ?? {}
          return life === undefined ? [] : [{ memberId, life }]
        })
    } catch {
      return []
    }
  }
  /**
   * Removes members whose process was killed on this machine; otherwise the group would wait for them until their sessions end. A process
   * may take a while to end, so this checks until this member has joined. Unfinished work of theirs is fenced by the claims that follow.
   * Never fails: without it joining only takes longer.
   */
  private async removeDead(others: ReadonlyArray<MemberProcess>, over: AbortSignal) {
    let living = others
    while (living.length > 0 && !over.aborted) {
      const dead = living.filter(({ life }) => hasEnded(life))
      living = living.filter((one) => !dead.includes(one))
      for (const { memberId } of dead) {
        // the member's own connection waits for the join's answer
        await this.client
          .use(this.node, "remove", (broker) => broker.leaveGroup({ groupId: this.group, memberId }), 2_000)
          .catch(() => undefined)
      }
      await sleep(lookMs, undefined, { signal: over }).catch(() => undefined)
    }
  }

  private async assign(members: ReadonlyArray<{ readonly memberId: string; readonly memberMetadata: Buffer }>) {
    const { leaders } = await this.client.topic(this.topic)
    const others = members.map(({ memberId, memberMetadata }): MemberState => {
      const { generation, owned } = dataOf(memberMetadata, false) as MemberMetadata
      return { id: memberId, owned, generation }
    })
    // Kafka's own generation starts again at 1 after a group was empty for a while, and the store refuses an older one
    const generation = Math.max(Date.now(), ...others.map((other) => other.generation + 1))
    return [...balance(others, leaders.length)].map(([memberId, partitions]) => ({
      memberId,
      memberAssignment: assignmentOf(this.topic, { partitions, generation })
    }))
  }

  /** Sends a heartbeat. Rejects if the coordinator does not answer. */
  async beat(): Promise<HeartbeatAnswer> {
    try {
      await this.call(
        (broker) =>
          broker.heartbeat({ groupId: this.group, groupGenerationId: this.kafkaGeneration, memberId: this.id }),
        this.sessionMs
      )
      return "fine"
    } catch (cause) {
      if (isForgotten(cause)) return "lost"
      if (failureOf(cause).code === "REBALANCE_IN_PROGRESS") return "rejoin"
      throw cause
    }
  }

  /** Leaves the group, so that the others need not wait for its session to end. Never rejects. */
  async leave(): Promise<void> {
    try {
      if (this.id !== "")
        await this.call((broker) => broker.leaveGroup({ groupId: this.group, memberId: this.id }), 2_000)
    } catch {
      // without an answer its session ends by itself
    } finally {
      this.drop()
    }
  }
}
