// Where a stream stands on Kafka, judged against the database: the one place where a relay decides to go on or to halt. Pure.
import type { FollowingSegments, MirroredPosition, OutboxPosition, Segment } from "../../relay/outbox.ts"
import type { OutboxStream } from "../../relay/target.ts"
import type { Offset } from "../protocol/transactional-producer.ts"

/** The consumer group that keeps a projection's positions: topic and partition are the stream's source, the offset is the sequence. */
export const groupOf = (prefix: string, projection: string): string => `${prefix}/${projection}`
/** The transactional id of a lane. */
export const idOf = (prefix: string, lane: number): string => `${prefix}/${lane}`
/** Why a stream stands, and what to do. */
export interface Halted {
  readonly reason: string
}
const repair = ({ partition, projection, source }: OutboxStream) =>
  `look at millrace-seq of the stream's last record there, then say where to go on: update millrace.relay_position ` +
  `set seq = <the end of a segment>, adopt = true where (target, projection, source, partition) = ('kafka', '${projection}', '${source}', ${partition})`

/** Where to go on: the offset on Kafka is the truth, unless it is missing or behind what the database knows. */
export const placeOf = (
  mirrored: MirroredPosition,
  group: string,
  offset: Offset | undefined
): OutboxPosition | Halted => {
  const { incarnation, partition, projection, seq, source } = mirrored
  const stream = { projection, source, partition }
  // nothing was shipped yet
  if (offset === undefined && incarnation === undefined) return { ...stream, seq, incarnation }
  if (offset === undefined) {
    const reason =
      `message ${seq} was shipped, and Kafka has no offset of ${source}/${partition} in the group ${group}: it expired, ` +
      `the topic ${source} was made anew, or this is another cluster. ${repair(stream)}`
    return { reason }
  }
  if (offset.offset < seq) {
    const reason =
      `message ${seq} was shipped, and the group ${group} on Kafka is at ${offset.offset}: Kafka was restored to an older ` +
      `state, or this is another cluster. ${repair(stream)}`
    return { reason }
  }
  return { ...stream, seq: offset.offset, incarnation: offset.offset === 0 ? undefined : offset.metadata }
}
/** Why a person's word for a position is no use; undefined where it is. */
export const unadoptable = ({ seq }: OutboxPosition, there: string | undefined): Halted | undefined =>
  seq === 0 || there !== undefined
    ? undefined
    : {
        reason: `message ${seq} was given as the last one shipped, and no segment of the outbox ends with it: give one that does`
      }

/** Why the outbox does not go on where Kafka stands; undefined where it does. */
export const misfit = ({ place, there }: FollowingSegments): Halted | undefined => {
  if (place.incarnation === undefined || place.incarnation === there) return undefined
  const reason =
    `message ${place.seq} was the last one shipped, and the outbox has another one there, or none: the database was restored ` +
    `to another state. Messages that Kafka has beyond it stay there; ${repair(place)}`
  return { reason }
}
/** Why a segment does not follow; undefined where it does. */
export const gap = (expected: number, { firstSeq }: Segment): Halted | undefined =>
  firstSeq === expected
    ? undefined
    : {
        reason: `message ${expected} should be next, and the outbox goes on with ${firstSeq}: something deleted from it`
      }

/** Why a segment's topic cannot take it; `partitions` undefined: there is none. */
export const unfit = (
  { firstSeq, partition, topic }: Pick<Segment, "topic" | "partition" | "firstSeq">,
  partitions: number | undefined
): Halted | undefined => {
  if (partitions === undefined)
    return {
      reason: `there is no topic ${topic} on Kafka: declare it in an application and run 'millrace topics apply'`
    }
  if (partition === undefined || partition < partitions) return undefined
  const what = `message ${firstSeq} is for partition ${partition}`
  return { reason: `${topic} has ${partitions} partitions, and ${what}: it was made anew with fewer` }
}
