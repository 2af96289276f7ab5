// Bounds what requests hold at once, and keeps one credential, or the keys of one tenant, from holding all of it.
import { Problem, retryAfterSeconds } from "./problem.ts"

/** Who takes a slot, as its credential says. */
export interface SlotOwner {
  readonly name: string
  readonly tenant: string | undefined
  /** Whether it has no credential. */
  readonly isAnonymous?: true
}

/** Whose slots count together: those of a tenant, or of a credential of all tenants. */
const ownerOf = ({ name, tenant }: SlotOwner): string =>
  JSON.stringify(tenant === undefined ? ["name", name] : ["tenant", tenant])

/**
 * Slots that requests share. A tenant, or a credential of all tenants, gets another one only while more are free than it has: alone it gets half of
 * them, and others that come later find some. Requests without a credential may have all, for nothing tells them from one another.
 */
export class Slots {
  readonly #most: number
  readonly #taken = new Map<string, number>()
  #all = 0

  constructor(most: number) {
    this.#most = most
  }

  /**
   * Takes a slot. Returns what gives it back, which counts once. Throws a `Problem` 429 if the credential can have none now. `what`: who holds slots, as
   * "requests read views".
   */
  take(by: SlotOwner, what: string, retryAfter = retryAfterSeconds): () => void {
    const owner = by.isAnonymous === true ? undefined : ownerOf(by)
    const own = owner === undefined ? 0 : (this.#taken.get(owner) ?? 0)
    const free = this.#most - this.#all
    if (free <= own) {
      const many = free <= 0 ? `${this.#all} ${what}, which is the limit of this server` : ""
      const message = many || `${own} ${what} for this tenant or credential, which is its share of ${this.#most} now`
      throw new Problem(429, "overloaded", message, "send the request again after Retry-After seconds", retryAfter)
    }
    this.#all++
    if (owner !== undefined) this.#taken.set(owner, own + 1)
    let isTaken = true
    return () => {
      if (!isTaken) return
      isTaken = false
      this.#all--
      if (owner === undefined) return
      const left = this.#taken.get(owner)! - 1
      if (left === 0) this.#taken.delete(owner)
      else this.#taken.set(owner, left)
    }
  }
}
