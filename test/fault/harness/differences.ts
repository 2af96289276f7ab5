// Collects what a comparison finds wrong: counts by kind, and a few examples of each.

/** Something is missing, is there twice, is in the wrong order, or has other contents than it should. */
export type Kind = "lost" | "doubled" | "order" | "wrong"

/** The differences that were found so far. */
export class Differences {
  readonly counts: Record<Kind, number> = { lost: 0, doubled: 0, order: 0, wrong: 0 }
  /** The first of each kind, `most` at most. */
  readonly examples: Array<string> = []
  private readonly most: number

  constructor(most = 8) {
    this.most = most
  }
  add(kind: Kind, what: string, count = 1) {
    this.counts[kind] += count
    if (this.examples.filter((one) => one.startsWith(kind)).length < this.most) this.examples.push(`${kind}: ${what}`)
  }
  /** Adds a difference if the two values are not the same. */
  same(what: string, found: unknown, expected: unknown) {
    if (!Object.is(found, expected)) this.add("wrong", `${what} is ${String(found)} instead of ${String(expected)}`)
  }
  get total(): number {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0)
  }
  toString(): string {
    return `${JSON.stringify(this.counts)}\n${this.examples.join("\n")}`
  }
}
