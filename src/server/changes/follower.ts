// Sends a view to one client: the rows that there are, and then every change of them once, at the client's pace and without a transaction that stays open.
//
// Rows are read page by page in the order of the primary key, each page by a snapshot of its own. Before a page the client gets the changes between the
// snapshots of the page before and this one, of the rows that it has. So after each page it has exactly the rows up to there that the last snapshot sees.
import type { Connection, StreamMessage } from "../connection/connection.ts"
import { ClientStream, resume } from "../connection/client-stream.ts"
import type { Limits } from "../http/limits.ts"
import { pageRows, type PageQuery } from "../views/page-query.ts"
import { sqlErrorOf } from "../views/reader.ts"
import { changeCharacters, endTexts, type Feed, type FeedEnd } from "./feed.ts"
import type { UsedFeed } from "./feeds.ts"
import type { InTurn } from "./in-turn.ts"
import { changeId, type ChangePosition } from "./position.ts"
import type { ChangeSource } from "./source.ts"
import {
  type ChangeRow,
  changesAtOnce,
  changesStatement,
  type FollowedView,
  type RowFilter,
  rowsStatement
} from "./statements.ts"

/** What one client follows, and from where. */
export interface FollowChanges {
  readonly connection: Connection
  readonly limits: Limits
  readonly followed: FollowedView
  readonly filter: RowFilter
  /** The primary key as an order. */
  readonly order: PageQuery["order"]
  readonly digest: string
  readonly position: ChangePosition
  /** Why the rows are sent from the first one on; undefined: the client goes on. */
  readonly because: string | undefined
  /** Takes the feed of the view's journal, and what gives it back. */
  readonly use: () => UsedFeed
  readonly source: ChangeSource
  /** Runs reads of single clients, a few at once. */
  readonly inTurn: InTurn
}

/** About how many characters are written at once. */
const chunk = 64 * 1024
/** The pause before the next read after a failed one, in milliseconds. */
const patienceMs = 1_000

/** Sends the rows of a view and their changes to one client. */
export class ChangeFollower extends ClientStream {
  readonly #follow: FollowChanges
  #at: ChangePosition
  #because: string | undefined
  #feed: Feed | undefined
  /** The filter as the feed knows it. */
  #filter: RowFilter
  /** The chunk of the feed that the client has got last; undefined: it reads changes itself, until it has those of the feed. */
  #number: number | undefined

  constructor(follow: FollowChanges) {
    super(follow.connection, follow.limits)
    this.#follow = follow
    this.#filter = follow.filter
    this.#at = follow.position
    this.#because = follow.because
  }

  protected id(): string {
    const boundary = this.#feed?.boundary
    // nothing has changed since: the position stays young, however quiet the view is
    if (boundary !== undefined && this.#number === boundary.number && this.#at.until === undefined)
      this.#at = { ...this.#at, seen: boundary.seen }
    return changeId(this.#follow.digest, this.#at)
  }
  protected begin(): () => void {
    const { feed, filter, release } = this.#follow.use()
    this.#feed = feed
    this.#filter = filter
    const leave = feed.join(filter, this.signal)
    return () => {
      leave()
      release()
    }
  }
  protected async round(): Promise<boolean> {
    const feed = this.#feed!
    if (feed.end !== undefined) {
      this.#stop(feed.end)
      return true
    }
    try {
      if (this.#because !== undefined) await this.#announce(this.#because)
      if (this.#at.until !== undefined) await this.#window()
      else if (this.#at.phase === "rows") await this.#page()
      else return await this.#live(feed)
    } catch (cause) {
      const error = sqlErrorOf(cause)
      if (error === undefined) throw cause
      if (error.code === "57014")
        this.stop(
          "view_timeout",
          `the rows could not be read in ${this.limits.viewMs} ms`,
          "filter by the primary key, or create an index for the filter"
        )
      else if (!error.retryable) throw cause
      else await new Promise((done) => setTimeout(done, patienceMs))
    }
    return true
  }

  #stop({ message, reason }: FeedEnd): void {
    const advice = reason === "internal_error" ? resume : `${resume}: the stream begins with all rows again`
    this.stop(reason, message, advice)
  }
  async #announce(reason: string): Promise<void> {
    const data = JSON.stringify({ view: this.#follow.followed.view.name, reason })
    this.#because = undefined
    await this.write([{ id: this.id(), event: "snapshot", data }])
  }

  /** Sends a page of rows, after the changes of those before it. */
  async #page(): Promise<void> {
    const { filter, followed, inTurn, order, source } = this.#follow
    const { journal, seen, upTo } = this.#at
    const limit = pageRows.most
    const statement = rowsStatement(followed, filter, { limit, order, upTo })
    const { isCut, rows, snapshot } = await inTurn(() => source.rows(statement, this.limits.viewBytes))
    const { end } = await source.state(journal, seen)
    if (end !== null) return this.#stop({ reason: end, message: endTexts[end] })
    if (upTo !== undefined) {
      this.#at = { ...this.#at, until: snapshot }
      while (this.#at.until !== undefined && !this.hasEnded) await this.#window()
      if (this.hasEnded) return
    }
    const isLast = !isCut && rows.length <= limit
    const page = rows.slice(0, limit)
    this.#at = { journal, phase: "rows", seen: snapshot, ...(upTo !== undefined && { upTo }) }
    await this.#send(page, ({ cursor, row }) => {
      this.#at = { journal, phase: "rows", seen: snapshot, upTo: JSON.parse(cursor) as ReadonlyArray<string> }
      return { event: "upsert", data: row }
    })
    if (!isLast || this.hasEnded) return
    this.#at = { journal, phase: "changes", seen: snapshot }
    await this.write([{ id: this.id(), event: "live", data: "{}" }])
  }

  /** Sends changes between two snapshots, as many as are read at once. */
  async #window(): Promise<void> {
    const { filter, followed, inTurn, order, source } = this.#follow
    const { after, journal, seen, until, upTo } = this.#at
    const isUpTo = upTo === undefined ? undefined : { order, values: upTo }
    const statement = changesStatement(followed, { journal, seen, until: until!, after }, [filter], isUpTo)
    const { isCut, rows } = await inTurn(() => source.changes(statement, changeCharacters))
    // what was read is complete only if the journal was kept until now
    const { end } = await source.state(journal, seen)
    if (end !== null) return this.#stop({ reason: end, message: endTexts[end] })
    const base = this.#at
    await this.#changes(rows, 0, (id) => ({ ...base, after: id }))
    if (this.hasEnded || isCut || rows.length >= changesAtOnce) return
    const { after: _after, until: _until, ...rest } = this.#at
    this.#at = { ...rest, seen: until! }
  }

  /** Sends what the feed has; before that, what it has had before. Resolves to false if there was nothing. */
  async #live(feed: Feed): Promise<boolean> {
    if (this.#number === undefined) {
      const boundary = await feed.nextBoundary()
      if (boundary === undefined) return true
      if (boundary.seen !== this.#at.seen) {
        this.#at = { ...this.#at, until: boundary.seen }
        while (this.#at.until !== undefined && !this.hasEnded && feed.end === undefined) await this.#window()
      }
      if (this.#at.until === undefined) this.#number = boundary.number
      return true
    }
    const found = feed.chunk(this.#number)
    const index = found?.indexOf.get(this.#filter)
    if (found === undefined || index === undefined) {
      if (this.#number === feed.boundary.number) return false
      this.#number = undefined
      return true
    }
    const { changes, number, seen, to, until } = found
    const { journal } = this.#at
    await this.#changes(changes, index, (after) => ({ journal, phase: "changes", seen, until, after }))
    if (this.hasEnded) return true
    this.#at = to
    this.#number = number
    return true
  }

  /** Sends what changes mean for the rows that fit the filter at an index: one that does no longer fit is deleted. */
  async #changes(
    changes: ReadonlyArray<ChangeRow>,
    index: number,
    positionOf: (id: string) => ChangePosition
  ): Promise<void> {
    await this.#send(changes, ({ after, before, id, key, row }) => {
      this.#at = positionOf(id)
      if (after?.[index] === "1") return { event: "upsert", data: row! }
      return before?.[index] === "1" ? { event: "delete", data: key } : undefined
    })
  }
  async #send<A>(
    items: ReadonlyArray<A>,
    messageOf: (item: A) => Pick<StreamMessage, "event" | "data"> | undefined
  ): Promise<void> {
    let messages: Array<StreamMessage> = []
    let size = 0
    for (const item of items) {
      const message = messageOf(item)
      if (message === undefined) continue
      messages.push({ id: changeId(this.#follow.digest, this.#at), ...message })
      size += message.data.length + 200
      if (size < chunk) continue
      await this.write(messages)
      messages = []
      size = 0
      if (this.hasEnded) return
    }
    await this.write(messages)
  }
}
