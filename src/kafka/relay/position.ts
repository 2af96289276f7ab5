// Compares a stream's position on Kafka with the database, and decides whether the relay may go on or must halt. Pure.
import type { FollowingSegments, MirroredPosition, OutboxPosition, Segment } from "../../relay/outbox.ts"
import type { OutboxStream } from "../../relay/target.ts"
import type { GroupOffset } from "../protocol/protocol.ts"
import { counted } from "../../text/counted.ts"

/** The consumer group that stores a projection's positions: topic and partition are the stream's source, the offset is the sequence. */
export const groupOf = (prefix: string, projection: string): string => `${prefix}/${projection}`
/** The transactional id of a lane. */
export const idOf = (prefix: string, lane: number): string => `${prefix}/${lane}`
/** Why a stream is halted, and what to do. */
export interface HaltReason {
  readonly reason: string
}
const repair = ({ partition, projection, source }: OutboxStream) =>
  `look at millrace-seq of the stream's last record there, then set where to go on: update millrace.relay_position ` +
  `set seq = <the end of a segment>, adopt = true where (target, projection, source, partition) = ('kafka', '${projection}', '${source}', ${partition})`

/** Where to go on: the offset on Kafka decides, unless it is missing or behind the position in the database. */
export const positionOf = (
  mirrored: MirroredPosition,
  group: string,
  offset: GroupOffset | undefined
): OutboxPosition | HaltReason => {
  const { incarnation, partition, projection, seq, source } = mirrored
  const stream = { projection, source, partition }
  // nothing was published yet
  if (offset === undefined && incarnation === undefined) return { ...stream, seq, incarnation }
  if (offset === undefined) {
    const reason =
      `message ${seq} was published, but Kafka has no offset of ${source}/${partition} in the group ${group}: it expired, ` +
      `the topic ${source} was recreated, or this is another cluster. ${repair(stream)}`
    return { reason }
  }
  if (offset.offset < seq) {
    const reason =
      `message ${seq} was published, but the group ${group} on Kafka is at ${offset.offset}: Kafka was restored to an older ` +
      `state, or this is another cluster. ${repair(stream)}`
    return { reason }
  }
  return { ...stream, seq: offset.offset, incarnation: offset.offset === 0 ? undefined : offset.metadata }
}
/** Why a position that a person set cannot be used; undefined if it can. */
export const adoptionProblem = ({ seq }: OutboxPosition, there: string | undefined): HaltReason | undefined =>
  seq === 0 || there !== undefined
    ? undefined
    : {
        reason: `message ${seq} was set as the last one published, but no segment of the outbox ends with it: set one that does`
      }

/** Why the outbox does not continue from the position on Kafka; undefined if it does. */
export const positionMismatch = ({ place: position, there }: FollowingSegments): HaltReason | undefined => {
  if (position.incarnation === undefined || position.incarnation === there) return undefined
  const reason =
    `message ${position.seq} was the last one published, but the outbox has another one there, or none: the database was restored ` +
    `to another state. Messages that Kafka has beyond it stay there; ${repair(position)}`
  return { reason }
}
/** Why a segment is not the next one; undefined if it is. */
export const segmentGap = (expected: number, { firstSeq }: Segment): HaltReason | undefined =>
  firstSeq === expected
    ? undefined
    : {
        reason: `message ${expected} should be next, but the outbox goes on with ${firstSeq}: messages were deleted from it`
      }

/** Why a segment cannot be published to its topic; undefined if it can. `partitions` is undefined if the topic does not exist. */
export const targetProblem = (
  { firstSeq, partition, topic }: Pick<Segment, "topic" | "partition" | "firstSeq">,
  partitions: number | undefined
): HaltReason | undefined => {
  if (partitions === undefined)
    return {
      reason: `there is no topic ${topic} on Kafka: declare it in an application and run 'millrace topics apply'`
    }
  if (partition === undefined || partition < partitions) return undefined
  const what = `message ${firstSeq} is for partition ${partition}`
  return { reason: `${topic} has ${counted(partitions, "partition")}, but ${what}: the topic was recreated with fewer` }
}
