// Sends commits: large ones each alone and at once, small ones of several partitions together when they would only queue for the server.
import type { Sql } from "../client/client.ts"
import type { CommitBuilder } from "./commit.ts"
import type { Commit, Parameter } from "./commit-parts.ts"
import { toSqlError } from "../client/errors.ts"

/** Rounds of small commits in flight at once. Further commits wait, and go together: rounds grow longer under load, rather than more. */
const roundsAtOnce = 1
const commitsAtOnce = 16

/** The server's own word that it refuses the data, and so that nothing was done. */
const refused = (code: string) => /^2[123]/.test(code)

interface Waiting {
  readonly commit: Commit
  readonly keys: ReadonlyArray<string>
  readonly resolve: (committed: boolean | Promise<boolean>) => void
}

/** The way of one projection's commits to the server. It tries nothing again: what became of a lost reply is the caller's to ask. */
export class Committer {
  private readonly sql: Sql
  private readonly builder: CommitBuilder
  private waiting: Array<Waiting> = []
  private rounds = 0

  constructor(sql: Sql, builder: CommitBuilder) {
    this.sql = sql
    this.builder = builder
  }

  /** Whether it was committed; false where its fence does not hold. Rejects with the driver's error. */
  send(commit: Commit): Promise<boolean> {
    const keys = this.builder.shareable(commit)
    if (keys === undefined) return this.alone(commit)
    return new Promise((resolve) => {
      this.waiting.push({ commit, keys, resolve })
      if (this.rounds < roundsAtOnce) void this.run()
    })
  }

  /** The commit by itself, now. */
  async alone(commit: Commit): Promise<boolean> {
    return (await this.execute([commit])).has(0)
  }

  private async run(): Promise<void> {
    this.rounds++
    while (this.waiting.length > 0) {
      const round = this.next()
      const outcome = this.together(round.map(({ commit }) => commit))
      for (const [i, { resolve }] of round.entries()) resolve(outcome.then((outcomes) => outcomes[i]!))
      await outcome.catch(() => undefined)
    }
    this.rounds--
  }

  /** The first that wait and write no row in common: one statement can change a row only once. */
  private next(): ReadonlyArray<Waiting> {
    const round: Array<Waiting> = []
    const left: Array<Waiting> = []
    const taken = new Set<string>()
    for (const waiting of this.waiting) {
      if (round.length === commitsAtOnce || waiting.keys.some((key) => taken.has(key))) left.push(waiting)
      else {
        round.push(waiting)
        for (const key of waiting.keys) taken.add(key)
      }
    }
    this.waiting = left
    return round
  }

  private async together(commits: ReadonlyArray<Commit>): Promise<ReadonlyArray<boolean | Promise<boolean>>> {
    try {
      const committed = await this.execute(commits)
      return commits.map((_, part) => committed.has(part))
    } catch (cause) {
      // the server refused the statement, so nothing of it was done, and one commit may be at fault: each by itself
      if (commits.length > 1 && refused(toSqlError("commit", cause).code)) {
        return commits.map((commit) => {
          const alone = this.alone(commit)
          alone.catch(() => undefined)
          return alone
        })
      }
      throw cause
    }
  }

  private async execute(commits: ReadonlyArray<Commit>): Promise<ReadonlySet<number>> {
    const { parameters, text } = this.builder.build(commits)
    const rows = await this.sql.unsafe<Array<{ part: number }>>(text, parameters as Array<Parameter>, { prepare: true })
    return new Set(rows.map(({ part }) => part))
  }
}
