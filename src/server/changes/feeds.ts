// The feeds of all views, and where in its view a request begins.
import { createHash } from "node:crypto"
import { type JournalEnd, JournalUnavailable } from "../../postgres/store/row-journal.ts"
import type { Limits } from "../http/limits.ts"
import { Problem, retryAfterSeconds } from "../http/problem.ts"
import { notReady } from "../views/routes.ts"
import { Feed } from "./feed.ts"
import { inTurn } from "./in-turn.ts"
import { type ChangePosition, parseChangeId } from "./position.ts"
import type { ChangeSource } from "./source.ts"
import type { FollowedView, RowFilter } from "./statements.ts"

/** How long a request waits for the transactions that write a table which nobody has followed before, in milliseconds. */
const busyMs = 10_000
/** How many reads of single clients run at once; others wait. */
const readsAtOnce = 2

interface SharedFeed {
  readonly feed: Feed
  /** The filters of its clients by what they ask for, so that equal ones are tested once. */
  readonly filters: Map<string, { readonly filter: RowFilter; users: number }>
  users: number
}
/** A feed that a client uses. */
export interface UsedFeed {
  readonly feed: Feed
  readonly filter: RowFilter
  readonly release: () => void
}
/** Where a client begins. */
export interface Beginning {
  readonly position: ChangePosition
  /** A snapshot of now, from which a feed may begin. */
  readonly now: string
  /** Why it gets all rows from the first one on; undefined: it goes on, or gets changes alone. */
  readonly because: "start" | JournalEnd | undefined
}

const lastIdOf = (snapshot: string): bigint => BigInt(snapshot.split(":")[1]!)

/** The digest of what a request asks for: the id of a position means nothing for another one. */
export const digestOf = ({ columns, view }: FollowedView, { filters, tenant }: RowFilter): string => {
  const asked = filters.map(({ column, operator, values }) => JSON.stringify([column.name, operator, ...values]))
  const key = columns.filter(({ name }) => view.key.includes(name))
  const text = JSON.stringify([view.name, key, asked.toSorted(), tenant?.column, tenant?.name])
  return createHash("sha256").update(text).digest("base64url").slice(0, 16)
}

/** The feeds of a server. A feed starts with its first user and stops after its last. */
export class Feeds {
  readonly inTurn = inTurn(readsAtOnce)
  readonly #source: ChangeSource
  readonly #limits: Limits
  readonly #shared = new Map<string, SharedFeed>()
  readonly #opening = new Map<string, Promise<string>>()

  constructor(source: ChangeSource, limits: Limits) {
    this.#source = source
    this.#limits = limits
  }

  /** Where a request begins that asks for `from`: an id, `earliest` or `latest`. Rejects with a `Problem`, or with `SqlError`. */
  async beginning(followed: FollowedView, digest: string, from: string): Promise<Beginning> {
    const { view } = followed
    const asked = from === "earliest" || from === "latest" ? undefined : parseChangeId(from, view.key.length)
    if (asked === undefined && from !== "earliest" && from !== "latest")
      throw new Problem(
        400,
        "invalid_parameter",
        `${JSON.stringify(from.slice(0, 100))} is not a position in the changes of ${view.name}`,
        "use from=earliest, from=latest, a position token, or the id of a message of this stream"
      )
    if (asked !== undefined && asked.digest !== digest)
      throw new Problem(
        400,
        "invalid_cursor",
        `the position belongs to another view, to other filters, or to another tenant`,
        "send the same filters as before, or leave the position out to start again"
      )
    const [journal, now] = await this.#journal(followed)
    const fresh = { journal, phase: from === "latest" ? ("changes" as const) : ("rows" as const), seen: now }
    if (asked === undefined) return { position: fresh, now, because: from === "latest" ? undefined : "start" }
    const { position } = asked
    // of a server that was restored or replaced
    const isAhead = [position.seen, position.until ?? now].some((one) => lastIdOf(one) > lastIdOf(now))
    const end = isAhead ? "changes_expired" : (await this.#source.state(position.journal, position.seen)).end
    if (end !== null || position.journal !== journal)
      return { position: { ...fresh, phase: "rows" }, now, because: end ?? "view_replaced" }
    // it was disconnected before the first row
    const hasNothing = position.phase === "rows" && position.upTo === undefined
    return { position, now, because: hasNothing ? "start" : undefined }
  }

  /** Takes the feed of a journal, and the filter as the feed knows it: one object for all that have its digest. To be given back by `release`. */
  use(
    followed: FollowedView,
    {
      digest,
      filter: own,
      now,
      position
    }: Pick<Beginning, "now" | "position"> & { readonly digest: string; readonly filter: RowFilter }
  ): UsedFeed {
    const { journal } = position
    const key = JSON.stringify([journal, followed.columns])
    let shared = this.#shared.get(key)
    if (shared === undefined || shared.feed.end !== undefined) {
      const feed = new Feed(followed, this.#source, journal, now, this.#limits.recentBytes)
      shared = { feed, filters: new Map(), users: 0 }
      this.#shared.set(key, shared)
    }
    const used = shared
    used.users++
    const kept = used.filters.get(digest) ?? { filter: own, users: 0 }
    used.filters.set(digest, kept)
    kept.users++
    let isReleased = false
    return {
      feed: used.feed,
      filter: kept.filter,
      release: () => {
        if (isReleased) return
        isReleased = true
        if (--kept.users === 0) used.filters.delete(digest)
        if (--used.users > 0) return
        if (this.#shared.get(key) === used) this.#shared.delete(key)
        used.feed.stop()
      }
    }
  }

  /** The journal of a view that goes on, and a snapshot since which it has every change. */
  async #journal(followed: FollowedView): Promise<readonly [journal: string, now: string]> {
    for (let isFirst = true; ; isFirst = false) {
      const journal = await this.#opened(followed)
      const now = await this.#source.snapshot()
      const { end } = await this.#source.state(journal, now)
      if (end === null) return [journal, now]
      // it was replaced between the two
      if (!isFirst) throw busy(followed.view.name)
    }
  }
  /** Asks once for all requests that come at the same time. */
  #opened({ view }: FollowedView): Promise<string> {
    const found = this.#opening.get(view.name)
    if (found !== undefined) return found
    const { isShared, key, name, writtenBy } = view
    const opening = this.#source
      .open({ name, key, projection: isShared ? undefined : writtenBy[0] }, busyMs)
      .catch((cause: unknown) => {
        if (cause instanceof JournalUnavailable) throw cause.reason === "busy" ? busy(name) : notReady(name)
        throw cause
      })
      .finally(() => this.#opening.delete(name))
    this.#opening.set(name, opening)
    return opening
  }
}
const busy = (name: string): Problem =>
  new Problem(
    503,
    "view_busy",
    `${name} is written by a transaction that stays open, so that its changes cannot be followed yet`,
    "send the request again after Retry-After seconds",
    retryAfterSeconds
  )
