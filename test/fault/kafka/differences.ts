// What a comparison finds wrong, by kind. Counts go on for ever, examples do not.

/** Something is missing, is there twice, came in another order, or says another thing than the fold of the log. */
export type Kind = "lost" | "doubled" | "order" | "wrong"

/** Collects differences. */
export class Differences {
  readonly counts: Record<Kind, number> = { lost: 0, doubled: 0, order: 0, wrong: 0 }
  /** The first few of each kind. */
  readonly examples: Array<string> = []
  private readonly most: number

  constructor(most = 8) {
    this.most = most
  }
  add(kind: Kind, what: string, count = 1) {
    this.counts[kind] += count
    if (this.examples.filter((one) => one.startsWith(kind)).length < this.most) this.examples.push(`${kind}: ${what}`)
  }
  /** Both values, where they differ. */
  same(what: string, found: unknown, expected: unknown) {
    if (!Object.is(found, expected)) this.add("wrong", `${what} is ${String(found)}, and not ${String(expected)}`)
  }
  get total(): number {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0)
  }
  toString(): string {
    return `${JSON.stringify(this.counts)}\n${this.examples.join("\n")}`
  }
}
