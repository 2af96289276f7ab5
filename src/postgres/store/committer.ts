// Sends commits: large ones each at once, and small ones of several partitions together while another round is under way.
import type { Claim } from "../../runner/store.ts"
import type { Sql } from "../client/client.ts"
import type { CommitBuilder } from "./commit.ts"
import type { PartitionCommit, Parameter } from "./commit-parts.ts"
import { answered } from "../client/answer.ts"
import { blameOf, toSqlError } from "../client/errors.ts"

/** How many rounds of small commits are in flight at once. Further commits wait and share a round: under load rounds get larger, not more. */
const roundsAtOnce = 1
const commitsAtOnce = 16

/** The partition's mode and the sequence of its stream after a commit, as the statement returns them. */
export interface CommittedState {
  readonly mode: Claim["mode"]
  readonly outboxSeq: number
}
/** Undefined: the fence does not hold, and nothing was committed. */
type CommitResult = CommittedState | undefined

/** A small commit that waits for a round. */
interface WaitingCommit {
  readonly commit: PartitionCommit
  readonly keys: ReadonlyArray<string>
  readonly resolve: (result: CommitResult | Promise<CommitResult>) => void
}

/** A row of the statement's result: a commit whose fence held. */
interface CommittedRow {
  readonly part: number
  readonly mode: Claim["mode"]
  readonly outbox_seq: number
}

/** Sends the commits of one projection. It retries nothing: after a lost reply the caller must check what was committed. */
export class Committer {
  private readonly sql: Sql
  private readonly builder: CommitBuilder
  private readonly answerMs: number | undefined
  private waiting: Array<WaitingCommit> = []
  private rounds = 0

  constructor(sql: Sql, builder: CommitBuilder, answerMs?: number) {
    this.sql = sql
    this.builder = builder
    this.answerMs = answerMs
  }

  /** Sends a commit, perhaps with others. Undefined if its fence does not hold. Rejects with the driver's error. */
  send(commit: PartitionCommit): Promise<CommitResult> {
    const keys = this.builder.shareable(commit)
    if (keys === undefined) return this.alone(commit)
    return new Promise((resolve) => {
      this.waiting.push({ commit, keys, resolve })
      if (this.rounds < roundsAtOnce) void this.run()
    })
  }

  /** Sends a commit by itself, at once. */
  async alone(commit: PartitionCommit): Promise<CommitResult> {
    return (await this.execute([commit])).get(0)
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

  /** Takes the first commits that write no row in common, because one statement can change a row only once. */
  private next(): ReadonlyArray<WaitingCommit> {
    const round: Array<WaitingCommit> = []
    const left: Array<WaitingCommit> = []
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

  private async together(
    commits: ReadonlyArray<PartitionCommit>
  ): Promise<ReadonlyArray<CommitResult | Promise<CommitResult>>> {
    try {
      const committed = await this.execute(commits)
      return commits.map((_, part) => committed.get(part))
    } catch (cause) {
      // Whatever the error is, nobody is blamed for it before its commit was tried alone. If the statement was refused, nothing was
      // committed, and each is sent by itself. After a lost reply, or an error that may pass, each caller checks and sends its own again.
      const error = toSqlError("commit", cause)
      const isCheckedByCaller = error.inDoubt || (error.retryable && blameOf(error) === "moment")
      if (commits.length > 1 && !isCheckedByCaller) {
        return commits.map((commit) => {
          const alone = this.alone(commit)
          alone.catch(() => undefined)
          return alone
        })
      }
      throw cause
    }
  }

  private async execute(commits: ReadonlyArray<PartitionCommit>): Promise<ReadonlyMap<number, CommittedState>> {
    const { parameters, text } = this.builder.build(commits)
    const rows = await answered(
      this.sql.unsafe<Array<CommittedRow>>(text, parameters as Array<Parameter>, { prepare: true }),
      this.answerMs
    )
    return new Map(rows.map(({ mode, outbox_seq: outboxSeq, part }) => [part, { mode, outboxSeq }]))
  }
}
