// Who waits for which partition of the log, and who must be told when it grows. It reads and writes nothing itself.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { Position } from "../../log/log.ts"

/** A reader that may be waiting. */
export interface Watcher {
  readonly topicId: number
  readonly partition: number
  /** Woken once the partition ends behind this. */
  position: Position
  /** Where the partition ends, as far as this process was told. */
  end: Position
  readonly latch: Latch.Latch
}
/** The channel that processes tell each other on: `a;<sender>;<topic id>.<partition>=<end>,…` or `g;<group id>`. */
export const channel = "millrace_log"
/** PostgreSQL takes less than 8000 bytes; an element has at most 45. */
const partsAtOnce = 150

/** Readers to wake, and the ends that other processes have not been told yet. */
export class Wake {
  readonly watchers = new Set<Watcher>()
  readonly sender = Math.random().toString(36).slice(2)
  private readonly untold = new Map<string, number>()

  /** Watches until the scope closes. */
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
  /** A partition ends at `end`, at least. */
  grown(topicId: number, partition: number, end: number): void {
    for (const watcher of this.watchers) {
      if (watcher.topicId !== topicId || watcher.partition !== partition) continue
      watcher.end = Math.max(watcher.end, end)
      if (watcher.position < end) watcher.latch.openUnsafe()
    }
  }
  /** The same, and other processes are to hear of it. */
  appended(topicId: number, partition: number, end: number): void {
    this.grown(topicId, partition, end)
    this.untold.set(`${topicId}.${partition}`, end)
  }
  /** What to tell the others next; undefined: nothing. */
  tell(): string | undefined {
    const parts: Array<string> = []
    for (const [key, end] of this.untold) {
      if (parts.length === partsAtOnce) break
      parts.push(`${key}=${end}`)
      this.untold.delete(key)
    }
    return parts.length === 0 ? undefined : `a;${this.sender};${parts.join(",")}`
  }
  /** Takes what another process, or this one, told. Returns a group's number where it is about that. */
  told(payload: string): number | undefined {
    const [kind, who, parts] = payload.split(";")
    if (kind === "g") return Number(who)
    if (kind !== "a" || who === this.sender || parts === undefined) return undefined
    for (const part of parts.split(",")) {
      const [topicId, partition, end] = part.split(/[.=]/)
      this.grown(Number(topicId), Number(partition), Number(end))
    }
    return undefined
  }
  /** Wakes all, to look for themselves. */
  all(): void {
    for (const watcher of this.watchers) watcher.latch.openUnsafe()
  }
}
