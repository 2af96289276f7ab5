// How one partition of a projection announces its stream time in the derived topics that other projections read: which messages carry it,
// and when time marks are due. Marks let a reader's stream time move although its partition gets no messages.
import { timeHeader, timeText } from "../log/time-mark.ts"
import type { Topic } from "../model/topic.ts"
import { metaText, type MessageTimes, type SendingEvent } from "./segments.ts"
import type { Segment, AnnouncedTimes } from "./store.ts"

/** A derived topic that another projection of the application reads. */
export interface MarkTarget {
  readonly topic: Topic.Any
  readonly partitions: number
  /** Whether a window of the projection publishes to it. */
  readonly hasWindows: boolean
}

/** A message that is dated further before its event than this is taken for a mistake: marks do not wait for others like it. */
const mostShift = 366 * 86_400_000

interface Target extends MarkTarget {
  /** The greatest time that was announced to each partition under this claim. */
  readonly announced: Array<number | undefined>
  /** The same by the messages of the commit that is being built, and how far one of them is dated before its event. */
  sent: Array<number | undefined>
  shift: number
}
/** What is announced once the commit that is being built has succeeded. */
interface Building {
  readonly announced: AnnouncedTimes
  readonly streamTime: number | undefined
  readonly hasMarks: boolean
}

/**
 * The time marks of one stream, under one claim. For each attempt at a commit, call `reset`, let it take notice of all messages, and call
 * `changes`; then `onCommitted` if it succeeded. Under a new claim everything is announced once more, because it is not known what readers
 * have seen: a topic may be new to them, or retention may have deleted its marks.
 */
export class TimeMarks implements MessageTimes {
  private readonly targets: ReadonlyMap<string, Target>
  private readonly stream: string
  private readonly everyMs: number
  private committed: AnnouncedTimes
  private streamTime: number | undefined
  private nextAt: number
  private building: Building | undefined

  /** `last` is what the last commit left. Marks of one stream are at least `everyMs` apart, by the monotonic clock. */
  constructor(
    stream: string,
    targets: ReadonlyArray<MarkTarget>,
    last: { readonly announced: AnnouncedTimes | undefined; readonly streamTime: number | undefined },
    everyMs: number
  ) {
    this.stream = stream
    this.targets = new Map(
      targets.map((target) => [target.topic.name, { ...target, announced: [], sent: [], shift: 0 }])
    )
    this.committed = last.announced ?? {}
    this.streamTime = last.streamTime
    this.everyMs = everyMs
    this.nextAt = performance.now() + everyMs
  }

  /** Forgets what an attempt that was not committed has noted. */
  reset(): void {
    for (const target of this.targets.values()) {
      target.sent = []
      target.shift = 0
    }
    this.building = undefined
  }
  isAnnounced(topic: string): boolean {
    return this.targets.has(topic)
  }
  header(topic: string, time: number, { reached }: SendingEvent): string | undefined {
    const target = this.targets.get(topic)
    if (target === undefined) return undefined
    // messages of windows follow, and are of earlier events
    if (target.hasWindows) return timeText(undefined)
    return reached !== undefined && time <= reached ? undefined : timeText(reached)
  }
  sent(topic: string, partition: number, time: number, event: SendingEvent): void {
    const target = this.targets.get(topic)
    if (target === undefined) return
    this.note(target, partition, time, target.hasWindows ? { ...event, reached: undefined } : event)
  }
  sentByWindow(topic: string, partition: number, time: number, event: SendingEvent): void {
    const target = this.targets.get(topic)
    if (target !== undefined) this.note(target, partition, time, event)
  }
  private note(target: Target, partition: number, time: number, { eventTime, reached }: SendingEvent): void {
    const shift = eventTime - time
    if (shift > target.shift && shift <= mostShift) target.shift = shift
    if (reached !== undefined) raise(target.sent, partition, Math.min(time, reached))
  }

  /** The marks of a commit that leaves the partition at this stream time, and what is announced then: undefined if it is as before. */
  changes(streamTime: number | undefined): {
    readonly marks: ReadonlyArray<Segment>
    readonly announced: AnnouncedTimes | undefined
  } {
    const isDue = performance.now() >= this.nextAt
    const marks: Array<Segment> = []
    const announced = { ...this.committed }
    let isChanged = false
    for (const [name, target] of this.targets) {
      const before = this.committed[name] ?? { time: null, shift: 0 }
      const shift = Math.max(before.shift, target.shift)
      let { time } = before
      if (streamTime !== undefined) {
        const missing = missingOf(target, streamTime - shift)
        if (isDue) for (const partition of missing) marks.push(this.mark(target, partition, streamTime - shift))
        if (isDue || missing.length === 0) time = streamTime
      }
      if (time === before.time && shift === before.shift) continue
      announced[name] = { time, shift }
      isChanged = true
    }
    this.building = { announced, streamTime, hasMarks: marks.length > 0 }
    return { marks, announced: isChanged ? announced : undefined }
  }
  /** A mark has no key, so that it deletes none. In a compacted topic each stream has a key of its own, so that its old marks go. */
  private mark({ topic }: MarkTarget, partition: number, time: number): Segment {
    const key = topic.compacted === true ? `${timeHeader} ${this.stream}` : null
    const meta = metaText(key, time, undefined, undefined, undefined, 1, timeText(time))
    return { topic: topic.name, partition, messages: 1, meta: `[${meta}]`, vals: "" }
  }

  /** The commit succeeded. */
  onCommitted(): void {
    const { building, targets } = this
    if (building === undefined) return
    const { hasMarks, streamTime, announced } = building
    for (const [name, target] of targets) {
      for (const [partition, time] of target.sent.entries())
        if (time !== undefined) raise(target.announced, partition, time)
      if (!hasMarks || streamTime === undefined) continue
      for (let partition = 0; partition < target.partitions; partition++)
        raise(target.announced, partition, streamTime - (announced[name]?.shift ?? 0))
    }
    if (hasMarks) this.nextAt = performance.now() + this.everyMs
    this.committed = announced
    this.streamTime = streamTime
    this.reset()
  }
  /** In how many milliseconds marks are due although no event comes; undefined if every partition knows the stream time. */
  get dueMs(): number | undefined {
    const { committed, nextAt, streamTime } = this
    if (streamTime === undefined) return undefined
    const isMissing = [...this.targets].some(
      ([name, target]) => missingOf(target, streamTime - (committed[name]?.shift ?? 0)).length > 0
    )
    return isMissing ? Math.max(0, nextAt - performance.now()) : undefined
  }
}

const raise = (times: Array<number | undefined>, partition: number, time: number) =>
  void (times[partition] = Math.max(times[partition] ?? -Infinity, time))
/** The partitions to which the time was not announced, neither before nor by the messages of the commit. */
const missingOf = ({ partitions, sent, announced }: Target, time: number): ReadonlyArray<number> => {
  const missing: Array<number> = []
  for (let partition = 0; partition < partitions; partition++)
    if ((announced[partition] ?? -Infinity) < time && (sent[partition] ?? -Infinity) < time) missing.push(partition)
  return missing
}
