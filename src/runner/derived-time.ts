// Stream time over a derived topic: the slowest of the streams that feed it. Pure.
import { streamHeaders } from "../log/envelope.ts"
import type { LogRecord } from "../log/log.ts"
import { endOfStream, sentTime } from "../log/time-mark.ts"
import type { StreamTimes } from "./store.ts"
import { PartitionTime, reachOf, type StreamTime } from "./stream-time.ts"

/** Streams that feed a topic: those of one projection's source, `<projection>/<source>`, one for each partition of it. */
export interface FeedStreams {
  readonly name: string
  readonly partitions: number
  /** Whether each of them counts only from the first time that it announces. Default: a stream that has announced nothing holds the time. */
  readonly joins?: true
}

/** How many streams of another application's projections are distinguished, gaps between partitions included; further ones do not count. */
const mostStreams = 4_000

const streamOf = (record: LogRecord): readonly [name: string, partition: number] | undefined => {
  const stream = record.headers[streamHeaders.stream]
  if (stream === undefined) return undefined
  const slash = stream.lastIndexOf("/")
  const partition = stream.slice(slash + 1)
  return slash > 0 && /^\d{1,5}$/.test(partition) ? [stream.slice(0, slash), Number(partition)] : undefined
}

/**
 * The stream time of a partition of a derived topic: the least of the greatest times that its streams have announced there. A stream that
 * has announced nothing holds it, and then no event is late. What streams announce is in the log, so a replay decides the same.
 *
 * A stream that has ended, because the promoted build does not read its source, announces `endOfStream`: it holds the time no longer. If the stream goes
 * on later, it counts again.
 *
 * The streams are those that the application declares (`feeds`); records without the header of one of them do not move the time. A program
 * that writes that header announces times as the stream does. Without `feeds` the streams are those that were seen so far, and until there is one, the time is that of any other topic.
 */
export class DerivedTime implements StreamTime {
  current: number | undefined
  /** How many streams of each name count; undefined: all that were seen. */
  private readonly counted: ReadonlyMap<string, FeedStreams> | undefined
  private readonly times: Map<string, Array<number | null>>
  private readonly plain: PartitionTime
  private least = Infinity
  private isChanged = false

  /** `current` and `kept` are what the last commit left. */
  constructor(
    current: number | undefined,
    kept: StreamTimes | undefined,
    feeds: ReadonlyArray<FeedStreams> | undefined
  ) {
    this.current = current
    this.plain = new PartitionTime(current)
    // those of removed projections do not count; they are kept in case the projections come back
    this.times = new Map(Object.entries(kept ?? {}).map(([name, times]) => [name, [...times]]))
    this.counted = feeds && new Map(feeds.map((feed) => [feed.name, feed]))
    this.recount()
  }

  advance(record: LogRecord, eventTime: number): number {
    const stream = streamOf(record)
    if (stream !== undefined) this.take(stream, record, eventTime)
    else if (this.counted === undefined && this.times.size === 0) this.current = this.plain.advance(record, eventTime)
    // while a stream holds the time, no event is late
    return this.current ?? eventTime
  }
  /** Takes what a time mark announces. */
  mark(record: LogRecord): void {
    const stream = streamOf(record)
    if (stream !== undefined) this.take(stream, record, undefined)
  }
  /** The streams' times to commit; undefined if they are as the last commit left them. */
  get streamTimes(): StreamTimes | undefined {
    return this.isChanged ? Object.fromEntries(this.times) : undefined
  }

  private take([name, partition]: readonly [string, number], record: LogRecord, eventTime: number | undefined): void {
    const sent = sentTime(record, eventTime)
    if (sent === undefined || !this.counts(name, partition)) return
    let times = this.times.get(name)
    if (times === undefined) this.times.set(name, (times = []))
    while (times.length <= partition) times.push(null)
    const reached = sent === endOfStream ? sent : reachOf(record, sent)
    const before = times[partition]!
    if (before !== null && before >= reached && before !== endOfStream) return
    times[partition] = reached
    this.isChanged = true
    // the least time can only have changed if this stream had it
    if (before === null || before === endOfStream || before === this.least) this.recount()
  }
  private counts(name: string, partition: number): boolean {
    // a partition that the source got since is counted from the next claim on
    if (this.counted !== undefined) return partition < (this.counted.get(name)?.partitions ?? 0)
    const added = partition + 1 - (this.times.get(name)?.length ?? 0)
    if (added <= 0) return true
    let streams = 0
    for (const times of this.times.values()) streams += times.length
    return streams + added <= mostStreams
  }

  /** Finds the least time, and moves stream time to it unless a stream holds it. */
  private recount(): void {
    let least = Infinity
    for (const [name, { joins, partitions }] of this.counted ?? []) {
      const times = this.times.get(name) ?? []
      for (let partition = 0; partition < partitions; partition++)
        least = Math.min(least, times[partition] ?? (joins === true ? Infinity : -Infinity))
    }
    if (this.counted === undefined)
      for (const times of this.times.values()) for (const time of times) least = Math.min(least, time ?? Infinity)
    this.least = least
    if (Number.isFinite(least) && least !== endOfStream && (this.current === undefined || least > this.current))
      this.current = least
  }
}
