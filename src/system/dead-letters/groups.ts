// Groups of dead letters by what could not process them and the error's name, counted one by one where no database counts them. Pure.
import type { DeadLetterGroup, GroupedDeadLetters, ListedDeadLetter } from "./source.ts"

/** How many groups a kind has at most, and how many different keys are kept to count them. What is beyond makes the counts too low. */
export const mostGroups = 200
const mostKeys = 200_000

interface Counted extends Omit<DeadLetterGroup, "keys"> {
  readonly keys: Set<string | null>
}

/** Counts dead letters by group, in bounded memory. */
export class GroupCounter {
  readonly #groups = new Map<string, Counted>()
  #keys = 0
  #isPartial = false

  add(deadLetter: ListedDeadLetter): void {
    const { details, failedAt, failedIn, id, key } = deadLetter
    const error = String(details["error"])
    const name = JSON.stringify([failedIn, error])
    const before = this.#groups.get(name)
    if (before === undefined && this.#groups.size >= mostGroups) {
      this.#isPartial = true
      return
    }
    const keys = before?.keys ?? new Set()
    if (!keys.has(key)) {
      if (this.#keys < mostKeys) {
        this.#keys++
        keys.add(key)
      } else this.#isPartial = true
    }
    const isNewest = before === undefined || failedAt >= before.lastFailedAt
    this.#groups.set(name, {
      failedIn,
      projection: undefined,
      error,
      count: (before?.count ?? 0) + 1,
      keys,
      firstFailedAt: Math.min(before?.firstFailedAt ?? failedAt, failedAt),
      lastFailedAt: isNewest ? failedAt : before.lastFailedAt,
      sample: isNewest ? { id, message: String(details["message"]) } : before.sample,
      waiting: 0,
      waits: false
    })
  }
  get result(): GroupedDeadLetters {
    const groups = [...this.#groups.values()].map(({ keys, ...group }) => Object.assign(group, { keys: keys.size }))
    return { groups, isPartial: this.#isPartial }
  }
}
