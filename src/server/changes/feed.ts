// The changes of a view that all its clients share: looks for new ones, tests them with every filter at once, and keeps a limited number of recent ones.
import type { JournalEnd } from "../../postgres/store/row-journal.ts"
import { sqlErrorOf } from "../views/reader.ts"
import type { ChangePosition } from "./position.ts"
import type { ChangeSource } from "./source.ts"
import { type ChangeRow, changesAtOnce, changesStatement, type FollowedView, type RowFilter } from "./statements.ts"

/** Changes that follow each other, in the journal of a feed. */
export interface Chunk {
  /** The number of the chunk: of two that follow each other, one greater. */
  readonly number: number
  readonly changes: ReadonlyArray<ChangeRow>
  /** The snapshots between which they are. */
  readonly seen: string
  readonly until: string
  /** The position behind them. */
  readonly to: ChangePosition
  /** Which character of `before` and `after` is a filter's. */
  readonly indexOf: ReadonlyMap<RowFilter, number>
  readonly bytes: number
}
/** A moment of a feed: all changes that `seen` sees are in the chunks up to `number`. */
export interface Boundary {
  readonly seen: string
  readonly number: number
}
/** Why a feed ended. */
export interface FeedEnd {
  readonly reason: JournalEnd | "internal_error"
  readonly message: string
}

/** The pause after a look for changes, in milliseconds: it grows while there are none. */
const pauseMs = { first: 20, most: 200 } as const
/** The pause after a failed one. */
const patienceMs = 1_000
/** How often the journal is kept, in milliseconds. */
const keepMs = 10_000
/** Characters of changes that are read at once. */
export const changeCharacters = 1024 * 1024

/** What the ends of a journal mean for its readers. */
export const endTexts: Readonly<Record<JournalEnd, string>> = {
  view_replaced: "another build's rows are shown now, or the table was truncated",
  changes_expired: "changes were deleted before they were sent"
}

/** The recent changes of a view, as they come. Runs until `stop`. */
export class Feed {
  /** Why the feed ended. Undefined while it runs. */
  end: FeedEnd | undefined
  readonly journal: string
  readonly #followed: FollowedView
  readonly #source: ChangeSource
  readonly #bytes: number
  readonly #listeners = new Set<() => void>()
  /** The filters of clients, and how many clients have each. Equal filters are one object. */
  readonly #groups = new Map<RowFilter, number>()
  #chunks: Array<Chunk> = []
  #held = 0
  #at: ChangePosition
  #boundary: Boundary
  #waiting: Array<(boundary: Boundary | undefined) => void> = []
  #isStopped = false
  #wake: (() => void) | undefined

  /** Reads the changes that `seen` does not see. `bytes` limits what is kept. */
  constructor(followed: FollowedView, source: ChangeSource, journal: string, seen: string, bytes: number) {
    this.#followed = followed
    this.#source = source
    this.#bytes = bytes
    this.journal = journal
    this.#at = { journal, phase: "changes", seen }
    this.#boundary = { seen, number: 0 }
    void this.#run()
  }

  /** The chunk behind a number; undefined if there is none yet, or it is no longer kept: then the boundary is behind it. */
  chunk(number: number): Chunk | undefined {
    const first = this.#chunks[0]
    return first === undefined ? undefined : this.#chunks[number + 1 - first.number]
  }
  /** The last boundary that was reached. */
  get boundary(): Boundary {
    return this.#boundary
  }
  /** A boundary that is reached from now on; undefined if the feed ends before. */
  async nextBoundary(): Promise<Boundary | undefined> {
    if (this.end !== undefined || this.#isStopped) return undefined
    return new Promise((done) => {
      this.#waiting.push(done)
      this.#wake?.()
    })
  }
  /** Tests changes with a filter from the next boundary on, and calls `listener` for new chunks and the end. Returns what stops both. */
  join(filter: RowFilter, listener: () => void): () => void {
    this.#groups.set(filter, (this.#groups.get(filter) ?? 0) + 1)
    this.#listeners.add(listener)
    return () => {
      if (!this.#listeners.delete(listener)) return
      const left = this.#groups.get(filter)! - 1
      if (left === 0) this.#groups.delete(filter)
      else this.#groups.set(filter, left)
    }
  }
  stop(): void {
    this.#isStopped = true
    this.#wake?.()
  }

  async #run(): Promise<void> {
    let pause: number = pauseMs.first
    let keptAt = -Infinity
    while (!this.#isStopped && this.end === undefined) {
      let hasFailed = false
      try {
        if (performance.now() - keptAt > keepMs) {
          const at = performance.now()
          if (!(await this.#source.keep(this.journal))) this.#finish("changes_expired", endTexts.changes_expired)
          keptAt = at
        }
        const hadChanges = await this.#look()
        pause = hadChanges ? pauseMs.first : Math.min(pauseMs.most, pause * 1.3)
      } catch (cause) {
        const error = sqlErrorOf(cause)
        hasFailed = true
        if (error?.retryable !== true) this.#finish("internal_error", `the changes cannot be read: ${String(cause)}`)
      }
      if (this.end !== undefined || this.#isStopped) break
      if (hasFailed) await new Promise((done) => setTimeout(done, patienceMs))
      else if (this.#waiting.length === 0) await this.#pause(pause)
    }
    for (const done of this.#waiting.splice(0)) done(undefined)
  }
  /** Waits, until a boundary is asked for. */
  async #pause(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((done) => {
      timer = setTimeout(done, ms)
      this.#wake = done
    })
    clearTimeout(timer)
    this.#wake = undefined
  }

  /** Reads the changes that have become visible. Resolves to whether there were any. */
  async #look(): Promise<boolean> {
    // what an earlier call has not finished, because a statement failed, belongs to an earlier moment
    if (this.#at.until !== undefined) {
      await this.#read()
      return true
    }
    const asked = this.#waiting.splice(0)
    try {
      const { end, hasChanges, snapshot } = await this.#source.state(this.journal, this.#at.seen)
      if (end !== null) this.#finish(end, endTexts[end])
      else if (hasChanges) {
        this.#at = { ...this.#at, until: snapshot }
        await this.#read()
      } else {
        this.#at = { ...this.#at, seen: snapshot }
        this.#boundary = { seen: snapshot, number: this.#boundary.number }
      }
      for (const done of asked.splice(0)) done(this.end === undefined ? this.#boundary : undefined)
      return hasChanges
    } finally {
      // after an error they wait for the next look
      this.#waiting.unshift(...asked)
    }
  }
  async #read(): Promise<void> {
    const { journal } = this
    while (this.#at.until !== undefined && !this.#isStopped) {
      const { after, seen, until } = this.#at
      const groups = [...this.#groups.keys()]
      const statement = changesStatement(this.#followed, { journal, seen, until, after }, groups)
      const { isCut, rows } = await this.#source.changes(statement, changeCharacters)
      // what was read is complete only if nothing of it was deleted meanwhile
      const { end } = await this.#source.state(journal, seen)
      if (end !== null) return this.#finish(end, endTexts[end])
      const isLast = !isCut && rows.length < changesAtOnce
      const next: ChangePosition = { journal, phase: "changes", seen: isLast ? until : seen }
      this.#at = isLast ? next : { ...next, until, after: rows.at(-1)!.id }
      const number = this.#boundary.number + 1
      const bytes = rows.reduce((sum, { key, row }) => sum + 200 + key.length + (row?.length ?? 0), 0)
      const indexOf = new Map(groups.map((group, i) => [group, i]))
      this.#keep({ number, changes: rows, seen, until, to: this.#at, indexOf, bytes })
      // clients get the first changes of a large transaction now
      this.#boundary = { seen: isLast ? until : this.#boundary.seen, number }
      this.#notify()
    }
  }
  #keep(chunk: Chunk): void {
    this.#chunks.push(chunk)
    this.#held += chunk.bytes
    let gone = 0
    while (this.#held > this.#bytes && gone < this.#chunks.length - 1) this.#held -= this.#chunks[gone++]!.bytes
    if (gone > 0) this.#chunks = this.#chunks.slice(gone)
  }
  #finish(reason: FeedEnd["reason"], message: string): void {
    this.end ??= { reason, message }
    this.#notify()
  }
  #notify(): void {
    for (const listener of this.#listeners) listener()
  }
}
