// Checks a stream's position against the outbox, and names the stream's producers. Pure.
import { type FollowingSegments, streamName, type Segment } from "../../relay/outbox.ts"
import type { OutboxStream } from "../../relay/target.ts"

/** The name of a stream's producer in each of its topics. One connection can have it at a time, and the broker keeps the last sequence id under it. */
export const producerName = (prefix: string, stream: string, generation: number): string =>
  `${prefix}/${stream}#${generation}`

/** What a person does if the position and the topics do not fit. */
export const repairAdvice = ({ partition, projection, source }: OutboxStream): string =>
  `look at millrace-seq of the stream's last message in its topics. If the outbox has these messages again, go on behind that number; if it has new ones ` +
  `under their numbers, because the log was restored, too, go on behind the message before the first new one: update millrace.relay_position set seq = <number>, ` +
  `incarnation = null, adopt = true where (target, projection, source, partition) = ('pulsar', '${projection}', '${source}', ${partition})`

/** Why the outbox does not continue from the relay's position; undefined if it does. */
export const positionMismatch = ({ place, there }: FollowingSegments): string | undefined =>
  place.incarnation === undefined || place.incarnation === there
    ? undefined
    : `message ${place.seq} of ${streamName(place)} was the last one published, but the outbox has another one there, or none: the database was restored to another state`
/** Why a segment is not the next one; undefined if it is. */
export const segmentGap = (expected: number, { firstSeq }: Segment): string | undefined =>
  firstSeq === expected
    ? undefined
    : `message ${expected} should be next, but the outbox goes on with ${firstSeq}: messages were deleted from it`
