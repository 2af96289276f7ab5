// Where a partition of a projection is in the application's chains: the streams that feed it, and the topics that its own stream feeds.
import * as Effect from "effect/Effect"
import type { Log, LogError, UnknownTopic } from "../log/log.ts"
import { type Chains, writtenTopics } from "../model/chains.ts"
import type { Projection } from "../model/projection.ts"
import { DerivedTime, type FeedStreams } from "./derived-time.ts"
import type { MessageTimes } from "./segments.ts"
import type { Changes, Claim } from "./store.ts"
import { PartitionTime, type StreamTime } from "./stream-time.ts"
import { type MarkTarget, TimeMarks } from "./time-marks.ts"

/** The streams around one partition of a projection. */
export interface ChainLinks {
  /**
   * The streams that feed the source. Undefined if no projection of the application publishes to it; empty if one does and no stream can
   * hold its time: it is a dead-letter topic, or derived from itself alone.
   */
  readonly feeds: ReadonlyArray<FeedStreams> | undefined
  /** The topics that other projections read. */
  readonly targets: ReadonlyArray<MarkTarget>
  /** How far apart time marks are at least, in milliseconds. */
  readonly markEveryMs?: number
}
/** The links of a projection that stands by itself. */
export const unlinked: ChainLinks = { feeds: undefined, targets: [] }

/** How far apart the time marks of one stream are, in milliseconds: a message more a second for each partition of a topic, at most. */
const markEveryMs = 1_000

/** Finds the links of a projection's source, which has so many partitions. */
export const linksOf = Effect.fnUntraced(function* (
  { feeds, published }: Chains,
  projection: Projection.Any,
  source: string,
  partitions: number,
  log: Pick<Log["Service"], "ends">
): Effect.fn.Return<ChainLinks, LogError | UnknownTopic> {
  const targets = writtenTopics(projection).filter(({ name }) =>
    (feeds.get(name) ?? []).some((feed) => feed.projection === projection.name && feed.source === source)
  )
  const windows = new Set(
    projection.writes.flatMap((target) => (target.kind === "window" && target.topic ? [target.topic.name] : []))
  )
  const of = feeds.get(source) ?? []
  const streams = yield* Effect.forEach(of, (feed) =>
    Effect.map(log.ends(feed.source), ({ length }) => ({
      name: `${feed.projection}/${feed.source}`,
      partitions: length,
      ...(feed.joins === true && { joins: feed.joins })
    })).pipe(
      // one of a build whose code is not here, and whose topic was deleted since
      Effect.catchTag("UnknownTopic", (error) => (feed.joins === true ? Effect.undefined : Effect.fail(error)))
    )
  )
  return {
    feeds: of.length > 0 || published.has(source) ? streams.filter((stream) => stream !== undefined) : undefined,
    targets: [...new Map(targets.map((topic) => [topic.name, topic])).values()].map((topic) => ({
      topic,
      partitions: topic.partitions ?? partitions,
      hasWindows: windows.has(topic.name)
    }))
  }
})

/** A claimed partition of a projection in the application's chains: what it knows of its sources' times, and what it announces of its own. */
export class ChainPosition {
  private readonly feeds: ChainLinks["feeds"]
  private readonly marks: TimeMarks | undefined

  constructor({ feeds, markEveryMs: everyMs = markEveryMs, targets }: ChainLinks, claim: Claim) {
    const { mode, partition, projection, topic } = claim
    this.feeds = feeds
    // a follower publishes nothing; once it is live, it is claimed again
    if (targets.length > 0 && mode !== "follower")
      this.marks = new TimeMarks(`${projection}/${topic}/${partition}`, targets, claim, everyMs)
  }

  /** How stream time moves while a batch is processed, from where the last commit left it. */
  time({ streamTime, streamTimes }: Claim): StreamTime {
    return this.feeds?.length === 0
      ? new PartitionTime(streamTime)
      : new DerivedTime(streamTime, streamTimes, this.feeds)
  }
  /** Takes notice of the messages of a batch; undefined if no other projection reads them. */
  get messageTimes(): MessageTimes | undefined {
    return this.marks
  }
  /** What a commit stores and announces of times, once all its messages are known. */
  changes(time: StreamTime): Pick<Changes, "streamTime" | "streamTimes" | "marks" | "announced"> {
    return { streamTime: time.current, streamTimes: time.streamTimes, ...this.marks?.changes(time.current) }
  }
  /** Forgets what an attempt that was not committed has noted. */
  reset(): void {
    this.marks?.reset()
  }
  /** The commit succeeded. */
  onCommitted(): void {
    this.marks?.onCommitted()
  }
  /** In how many milliseconds time marks are due although no event comes; undefined if none are. */
  get dueMs(): number | undefined {
    return this.marks?.dueMs
  }
}
