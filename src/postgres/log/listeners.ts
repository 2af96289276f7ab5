// The readers of this process that wait for partitions of the log, and the notifications between processes. No I/O.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { Position } from "../../log/log.ts"

/** A reader that may wait. */
export interface Watcher {
  readonly topicId: number
  readonly partition: number
  /** The reader is woken when the partition's end is greater than this. */
  position: Position
  /** The partition's end, as far as this process knows. */
  end: Position
  readonly latch: Latch.Latch
}
/** The channel of notifications: `a;<sender>;<topic id>.<partition>=<end>,…` after appends, `g;<group id>` when a group changed. */
export const channel = "millrace_log"
/** A notification of PostgreSQL is shorter than 8,000 bytes; an end has at most 45. */
const partsAtOnce = 150

/** Readers to wake, and ends that other processes have to be notified of. */
export class LogListeners {
  readonly watchers = new Set<Watcher>()
  readonly sender = Math.random().toString(36).slice(2)
  private readonly untold = new Map<string, number>()

  /** Registers a reader until the scope closes. */
  watch(topicId: number, partition: number, position: Position) {
    const watcher: Watcher = { topicId, partition, position, end: position, latch: Latch.makeUnsafe(false) }
    return Effect.acquireRelease(
      Effect.sync(() => {
        this.watchers.add(watcher)
        return watcher
      }),
      () => Effect.sync(() => this.watchers.delete(watcher))
    )
  }
  /** Wakes the readers of a partition that grew to `end`. */
  grown(topicId: number, partition: number, end: number): void {
    for (const watcher of this.watchers) {
      if (watcher.topicId !== topicId || watcher.partition !== partition) continue
      watcher.end = Math.max(watcher.end, end)
      if (watcher.position < end) watcher.latch.openUnsafe()
    }
  }
  /** The same, and queues a notification for other processes. */
  appended(topicId: number, partition: number, end: number): void {
    this.grown(topicId, partition, end)
    this.untold.set(`${topicId}.${partition}`, end)
  }
  /** Takes the next notification to send; undefined if there is none. */
  nextNotification(): string | undefined {
    const parts: Array<string> = []
    for (const [key, end] of this.untold) {
      if (parts.length === partsAtOnce) break
      parts.push(`${key}=${end}`)
      this.untold.delete(key)
    }
    return parts.length === 0 ? undefined : `a;${this.sender};${parts.join(",")}`
  }
  /** Handles a notification, wherever it was sent from. Returns the group's number if a group changed. */
  receive(payload: string): number | undefined {
    const [kind, sender, parts] = payload.split(";")
    if (kind === "g") return Number(sender)
    if (kind !== "a" || sender === this.sender || parts === undefined) return undefined
    for (const part of parts.split(",")) {
      const [topicId, partition, end] = part.split(/[.=]/)
      this.grown(Number(topicId), Number(partition), Number(end))
    }
    return undefined
  }
  /** Wakes all readers, which then look for themselves. */
  wakeAll(): void {
    for (const watcher of this.watchers) watcher.latch.openUnsafe()
  }
}
