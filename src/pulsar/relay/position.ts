// Where a stream stands on Pulsar, judged against the database, and what its producers are called. Pure.
import { type FollowingSegments, streamName, type Segment } from "../../relay/outbox.ts"
import type { OutboxStream } from "../../relay/target.ts"

/** The producer of a stream in each of its topics. One connection can have it, and its sequence ids ascend for as long as it is used. */
export const producerName = (prefix: string, stream: string, generation: number): string =>
  `${prefix}/${stream}#${generation}`

/** What a person does where position and topics do not fit. */
export const repair = ({ partition, projection, source }: OutboxStream): string =>
  `look at millrace-seq of the stream's last message in its topics, then: update millrace.relay_position set seq = <that number>, ` +
  `incarnation = null, adopt = true where (target, projection, source, partition) = ('pulsar', '${projection}', '${source}', ${partition})`

/** Why the outbox does not go on where the relay stands; undefined where it does. */
export const misfit = ({ place, there }: FollowingSegments): string | undefined =>
  place.incarnation === undefined || place.incarnation === there
    ? undefined
    : `message ${place.seq} of ${streamName(place)} was the last one shipped, and the outbox has another one there, or none: the database was restored to another state`
/** Why a segment does not follow; undefined where it does. */
export const gap = (expected: number, { firstSeq }: Segment): string | undefined =>
  firstSeq === expected
    ? undefined
    : `message ${expected} should be next, and the outbox goes on with ${firstSeq}: something deleted from it`
