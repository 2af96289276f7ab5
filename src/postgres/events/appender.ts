// Sends appends to PostgreSQL and finds out what became of each: appended, repeated or refused, also when a reply was lost.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Semaphore from "effect/Semaphore"
import { BoundaryMoved, CommandReused, EventStoreError, VersionConflict } from "../../aggregate/errors.ts"
import type { KeyRef } from "../../erasure/sealed.ts"
import type { Append, Appended, AppendError } from "../../aggregate/event-store.ts"
import { answered } from "../client/answer.ts"
import type { Sql } from "../client/client.ts"
import { columnsOf, type LookedUp, lookUpStatement } from "./look-up-sql.ts"
import { blameOf, type SqlError, toSqlError } from "../client/errors.ts"
import {
  type AppendedRow,
  type AppendRequest,
  type AppendRow,
  appendStatement,
  refusedCode,
  unpublishedCode
} from "./append-sql.ts"
import {
  conflictOf,
  refusedError,
  detailOf,
  erasedError,
  goneOf,
  isPinned,
  isErased,
  notNow,
  refusalOf,
  refusedAll
} from "./refusals.ts"
import { answerMs, eventStoreError, isRepeatable, patienceMs } from "./errors.ts"
import { answerOnly, inlineFailure, type InlineStatement, type InlineWriter, namesOf } from "./inline.ts"
import { frozenCode, inlineParts, otherInlineCode } from "./inline-sql.ts"
import { mayAllPass } from "./passing.ts"
import { Lanes, waitingCommands } from "./lanes.ts"
import { counted } from "../../text/counted.ts"

/** How many appends to several streams are under way at once. */
const atomicAtOnce = 4

type Result = Exit.Exit<Appended, AppendError>
/**
 * How a batch is sent: by the statement that expects all of its commands to pass, by the one that judges each of them, or by that one where all were
 * answered before and nothing may be appended.
 */
type Way = "passing" | "judged" | "answers"
/** A command that waits for its answer. */
interface Command {
  readonly row: AppendRow
  readonly append: Append
  readonly commandId: string
  readonly since: number
  readonly settle: (result: Result) => void
}
/** Appends to several streams, and the tags that they check and change. */
export type AtomicRequest = Pick<AppendRequest, "rows" | "tags">
/** A command that was refused, and why. */
type Refused = readonly [command: Command, error: AppendError]
/** What the appender needs besides a pool. */
export interface AppenderOptions {
  /** Called with each partition's new end after a commit. */
  readonly appended: (topicId: number, partition: number, end: number) => void
  /** The incarnation of outbox segments. */
  readonly incarnation: string
  /** Whether no statement expects all of its commands to pass. */
  readonly judgesAll: boolean
  /** Called after a commit that may have outbox segments. */
  readonly published: () => void
  /** Computes the rows of inline projections. */
  readonly inline: InlineWriter
}

const pause = (failures: number) =>
  new Promise<void>((resolve) => void setTimeout(resolve, Math.random() * Math.min(1_000, 10 * 2 ** failures)))
const appendedOf = (
  { partition }: AppendRow,
  row: { readonly first_version: number; readonly records: number; readonly position: number },
  repeated: boolean
): Appended => ({
  firstVersion: row.first_version,
  version: row.first_version + row.records - 1,
  partition,
  position: row.position,
  repeated
})
/** Whether a command that was refused has the version it expects, and is not one that must follow another command. */
const isPassing = ({ expected, follows }: AppendRow, { actual }: VersionConflict) =>
  expected === actual && follows === null
const reused = (digest: string | null, row: AppendRow) =>
  digest !== null && row.digest !== null && digest !== row.digest

/** Appends over a pool: a few statements at a time, and some for appends to several streams. */
export class Appender {
  /** How many statements were sent. */
  statements = 0
  private readonly sql: Sql
  private readonly options: AppenderOptions
  private readonly lanes: Lanes<Command>
  private atomic = 0
  /** Whether relays publish aggregates of this database, as far as it is known: an append finds out that they do. */
  private isPublished = false
  private readonly turns = Semaphore.makeUnsafe(atomicAtOnce)

  constructor(sql: Sql, options: AppenderOptions) {
    this.sql = sql
    this.options = options
    this.lanes = new Lanes((commands) => this.send(commands))
  }

  /** Appends one command's events to one stream. A call that is interrupted before its statement is sent appends nothing. */
  append(append: Append, commandId: string, row: AppendRow): Effect.Effect<Appended, AppendError> {
    return Effect.callback((resume) => {
      if (this.lanes.waiting() >= waitingCommands)
        return resume(Effect.fail(this.busy(append.aggregate, waitingCommands)))
      const command: Command = { row, append, commandId, since: Date.now(), settle: (result) => resume(result) }
      this.lanes.add(command)
      return Effect.sync(() => this.lanes.remove(command))
    })
  }

  /** Appends one command's events to several streams, all or none. */
  appendAll(
    appends: ReadonlyArray<Append>,
    commandId: string,
    request: AtomicRequest,
    nameOf: (topicId: number) => string
  ): Effect.Effect<ReadonlyArray<Appended>, AppendError | BoundaryMoved> {
    return Effect.suspend(() => {
      if (this.atomic >= waitingCommands) return Effect.fail(this.busy(appends[0]?.aggregate ?? "", waitingCommands))
      this.atomic++
      return Effect.promise(() => this.sendAll(appends, commandId, request, nameOf)).pipe(
        Effect.flatten,
        Effect.ensuring(Effect.sync(() => void this.atomic--))
      )
    })
  }

  /** Whether the statement failed because it had no segments for the outbox; the next one has. */
  private lacksSegments({ cause, code }: SqlError): boolean {
    const { table_name: table } = (cause ?? {}) as { readonly table_name?: unknown }
    if (code !== unpublishedCode || table !== "outbox") return false
    this.isPublished = true
    return true
  }

  private busy(aggregate: string, count: number) {
    const reason = `${counted(count, "append")} wait${count === 1 ? "s" : ""} already; append less often`
    return new EventStoreError({ operation: "append", aggregate, retryable: true, reason })
  }

  private async execute(
    { changes, rows, texts: inline }: Omit<InlineStatement, "failed">,
    { isAtomic, isJudged, tags }: Pick<AppendRequest, "isAtomic" | "isJudged" | "tags">
  ) {
    const { incarnation } = this.options
    const { isPublished } = this
    const isStrict = changes.length > 0
    const request = { rows, isAtomic, tags, incarnation, isPublished, inline, isStrict, isJudged }
    const { parameters, text } = appendStatement(request, (parts) => inlineParts(parts, changes))
    this.statements++
    const statement = this.sql.unsafe<Array<AppendedRow>>(text, parameters as Array<string>, { prepare: true })
    const answer = await answered(statement, answerMs)
    let appendedAny = false
    const ends = new Map<string, { readonly topicId: number; readonly partition: number; end: number }>()
    for (const { first_version, i, position, records, repeated } of answer) {
      if (first_version === null || repeated) continue
      appendedAny = true
      const { partition, topicId } = rows[i]!
      const there = ends.get(`${topicId}.${partition}`) ?? { topicId, partition, end: 0 }
      there.end = Math.max(there.end, position + records)
      ends.set(`${topicId}.${partition}`, there)
    }
    for (const { end, partition, topicId } of ends.values()) this.options.appended(topicId, partition, end)
    if (appendedAny && isPublished) this.options.published()
    return answer
  }

  /** Sends commands in one statement, and settles all of them. */
  private async send(commands: ReadonlyArray<Command>, failures = 0, as: Way = "passing"): Promise<void> {
    if (commands.length === 0) return
    let inline = ""
    let way = as
    try {
      const statement = await this.statementOf(commands, as === "answers")
      if (statement.failed.size > 0) {
        await this.lookUp([...statement.failed].map(([i, error]) => [commands[i]!, error] as const))
        return await this.send(
          commands.filter((_, i) => !statement.failed.has(i)),
          failures
        )
      }
      inline = namesOf(statement)
      if (way === "passing" && (this.options.judgesAll || !mayAllPass(statement.rows))) way = "judged"
      const answer = await this.execute(statement, { isAtomic: false, isJudged: way !== "passing", tags: [] })
      const refused: Array<Refused> = []
      for (const row of answer) {
        const command = commands[row.i]!
        if (row.first_version === null) refused.push([command, conflictOf(command.append, row.actual ?? 0, row.closed)])
        else if (reused(row.digest, command.row))
          this.fail(command, new CommandReused({ commandId: command.commandId }))
        else {
          const { first_version } = row
          command.settle(Exit.succeed(appendedOf(command.row, { ...row, first_version }, row.repeated)))
        }
      }
      await this.lookUp(refused)
    } catch (cause) {
      await this.failed(commands, cause, { failures, inline, way })
    }
  }
  private async statementOf(commands: ReadonlyArray<Command>, answers: boolean): Promise<InlineStatement> {
    const rows = commands.map(({ row }) => row)
    if (!answers) return this.options.inline.prepare(rows)
    const texts = new Map(rows.map(({ topicId }) => [topicId, answerOnly]))
    return { failed: new Map(), changes: [], rows, texts }
  }

  private fail(command: Command, error: AppendError): void {
    command.settle(Exit.fail(error))
  }

  /**
   * Commands that were refused may have been appended before nevertheless: by the same command, which was committed while the statement
   * waited for the lock. That is their answer then. Others follow a refused command of their stream, but would pass without it: they, and
   * those that follow them, are sent again.
   */
  private async lookUp(refused: ReadonlyArray<Refused>, failures = 0): Promise<void> {
    if (refused.length === 0) return
    const again: Array<Command> = []
    const streams = new Set<string>()
    try {
      const found = await this.answersOf(refused.map(([{ row }]) => row))
      for (const [i, [command, error]] of refused.entries()) {
        const before = found.get(i)
        const stream = `${command.row.topicId} ${command.row.stream}`
        const isConflict = error._tag === "VersionConflict"
        if (before === undefined && isConflict && (isPassing(command.row, error) || streams.has(stream))) {
          again.push(command)
          streams.add(stream)
        } else if (before === undefined) this.fail(command, error)
        else this.answer(command, before)
      }
    } catch (cause) {
      const error = toSqlError("append", cause)
      const [[{ append, since }]] = refused as [Refused]
      if (isRepeatable(error) && Date.now() - since < patienceMs) {
        await pause(failures)
        return this.lookUp(refused, failures + 1)
      }
      for (const [command] of refused) this.fail(command, eventStoreError("append", append.aggregate)(error))
    }
    return this.send(again, failures)
  }
  /** Settles a command that was answered before. */
  private answer(command: Command, before: LookedUp): void {
    const { commandId, row } = command
    if (reused(before.digest, row)) this.fail(command, new CommandReused({ commandId }))
    else command.settle(Exit.succeed(appendedOf(row, before, true)))
  }

  private async answersOf(rows: ReadonlyArray<AppendRow>): Promise<ReadonlyMap<number, LookedUp>> {
    const found = await answered(
      this.sql.unsafe<Array<LookedUp>>(lookUpStatement, columnsOf(rows), { prepare: true }),
      answerMs
    )
    return new Map(found.map((row) => [row.i, row]))
  }

  /** Sends commands again without those whose timers are gone; they may be answered already. */
  private async sendWithout(commands: ReadonlyArray<Command>, numbers: ReadonlyArray<number>, failures: number) {
    const gone = commands.filter((_, i) => numbers.includes(i + 1))
    await this.lookUp(gone.map((command) => [command, goneOf(command.append)]))
    return this.send(
      commands.filter((command) => !gone.includes(command)),
      failures
    )
  }

  /** Answers commands whose keys were destroyed, and sends the others again. */
  private async sendWithoutErased(commands: ReadonlyArray<Command>, erased: ReadonlyArray<KeyRef>, failures: number) {
    const [gone, left] = [true, false].map((is) => commands.filter(({ row }) => isErased(row, erased) === is)) as [
      Array<Command>,
      Array<Command>
    ]
    await this.lookUp(gone.map((command) => [command, erasedError(command.row, erased)] as const))
    return this.send(left, failures)
  }
  private async failed(
    commands: ReadonlyArray<Command>,
    cause: unknown,
    { failures, inline, way }: { readonly failures: number; readonly inline: string; readonly way: Way }
  ): Promise<void> {
    const error = toSqlError("append", cause)
    if (this.lacksSegments(error)) return this.send(commands, failures)
    // a key that is there already: a command was answered before
    if (way === "passing" && error.code === "23505") return this.send(commands, failures, "judged")
    const now = Date.now()
    if (error.code === otherInlineCode || error.code === frozenCode) {
      if (error.code === otherInlineCode) this.options.inline.learn(detailOf(cause))
      else await pause(1)
      const late = commands.filter(({ since }) => now - since > patienceMs)
      for (const command of late) this.fail(command, notNow(command.append.aggregate, error.reason))
      return this.send(
        commands.filter((one) => !late.includes(one)),
        failures
      )
    }
    if (error.code === refusedCode) {
      const refusal = refusalOf(cause)
      if (refusal.again || refusal.judge === true) return this.send(commands, failures, "judged")
      if (refusal.gone !== undefined) return this.sendWithout(commands, refusal.gone, failures)
      if (refusal.erased != null) return this.sendWithoutErased(commands, refusal.erased, failures)
      const isSentAgain = ({ append, since }: Command, one: Parameters<typeof isPinned>[1]) =>
        isPinned(append, one) && now - since < patienceMs
      const refused = new Map(
        refusal.refused?.filter((one) => !isSentAgain(commands[one.i - 1]!, one)).map((one) => [one.i - 1, one])
      )
      const repeated = new Set(refusal.repeated?.map((i) => i - 1))
      const others = commands.filter((_, i) => !refused.has(i) && !repeated.has(i))
      await this.send(
        commands.filter((_, i) => repeated.has(i) && !refused.has(i)),
        failures,
        "answers"
      )
      await this.lookUp(
        [...refused.values()]
          .toSorted((a, b) => a.i - b.i)
          .map((one): Refused => {
            const command = commands[one.i - 1]!
            return [command, refusedError(command.append, one)]
          })
      )
      return this.send(others, failures)
    }
    // a statement that is sent in the turn of the event loop in which its connection is lost would never be answered
    await new Promise((resolve) => void setImmediate(resolve))
    if (isRepeatable(error)) {
      const [patient, late] = [true, false].map((is) =>
        commands.filter(({ since }) => now - since < patienceMs === is)
      ) as [Array<Command>, Array<Command>]
      for (const command of late) this.fail(command, eventStoreError("append", command.append.aggregate)(error))
      await pause(failures)
      return this.send(patient, failures + 1)
    }
    if (commands.length > 1) {
      for (const command of commands) await this.send([command])
      return
    }
    return this.failedAlone(commands[0]!, error, inline)
  }
  /** A command that was sent by itself failed for good, unless it was appended at the same time. */
  private async failedAlone(command: Command, error: SqlError, inline: string): Promise<void> {
    const failure =
      inline !== "" && blameOf(error) === "data"
        ? inlineFailure(command.append, inline, error.reason)
        : eventStoreError("append", command.append.aggregate)(error)
    // a key that is there already: the same command was appended at the same time
    if (error.code === "23505") {
      const before = await this.answersOf([command.row]).catch(() => undefined)
      if (before === undefined) return this.send([command])
      const one = before.get(0)
      if (one !== undefined) return this.answer(command, one)
    }
    this.fail(command, failure)
  }

  private async sendAll(
    appends: ReadonlyArray<Append>,
    commandId: string,
    { rows, tags }: AtomicRequest,
    nameOf: (topicId: number) => string
  ): Promise<Exit.Exit<ReadonlyArray<Appended>, AppendError | BoundaryMoved>> {
    const aggregate = appends[0]!.aggregate
    const answer = (found: ReadonlyArray<LookedUp>) =>
      found.some((row, i) => reused(row.digest, rows[i]!))
        ? Exit.fail(new CommandReused({ commandId }))
        : Exit.succeed(found.map((row, i) => appendedOf(rows[i]!, row, true)))
    const since = Date.now()
    for (let failures = 0; ; failures++) {
      let inline = ""
      try {
        const statement = await this.options.inline.prepare(rows)
        const [failed] = statement.failed.values()
        if (failed !== undefined) {
          const before = await this.answersOf(rows)
          return before.size === rows.length ? answer(rows.map((_, i) => before.get(i)!)) : Exit.fail(failed)
        }
        inline = namesOf(statement)
        const answers = await this.execute(statement, { isAtomic: true, isJudged: true, tags })
        const appended = answers.filter((row) => row.first_version !== null) as ReadonlyArray<LookedUp & AppendedRow>
        if (appended.length < rows.length) return Exit.fail(new CommandReused({ commandId }))
        if (appended[0]!.repeated) return answer(appended)
        return Exit.succeed(appended.map((row, i) => appendedOf(rows[i]!, row, false)))
      } catch (cause) {
        const error = toSqlError("append", cause)
        if (this.lacksSegments(error)) continue
        const isRefused = error.code === refusedCode
        if (isRefused && refusalOf(cause).again) continue
        const isInTime = Date.now() - since < patienceMs
        if (error.code === otherInlineCode || error.code === frozenCode) {
          if (!isInTime) return Exit.fail(notNow(aggregate, error.reason))
          if (error.code === otherInlineCode) this.options.inline.learn(detailOf(cause))
          else await pause(1)
          continue
        }
        const others = isRefused ? refusalOf(cause) : undefined
        const arePinned =
          inline !== "" &&
          others !== undefined &&
          (others.tags ?? []).length === 0 &&
          (others.refused ?? []).length > 0 &&
          (others.refused ?? []).every((one) => isPinned(appends[one.i - 1]!, one))
        if (arePinned && isInTime) continue
        if (isRefused || error.code === "23505") {
          const found = await this.answersOf(rows).catch(() => undefined)
          if (found !== undefined && found.size === rows.length) return answer(rows.map((_, i) => found.get(i)!))
          if (found !== undefined && found.size > 0) return Exit.fail(new CommandReused({ commandId }))
          if (found !== undefined && isRefused) return Exit.fail(refusedAll(appends, refusalOf(cause), nameOf))
          if (found !== undefined) return Exit.fail(eventStoreError("append", aggregate)(error))
        }
        await new Promise((resolve) => void setImmediate(resolve))
        if (inline !== "" && blameOf(error) === "data" && !isRefused)
          return Exit.fail(inlineFailure(appends[0]!, inline, error.reason))
        if ((!isRefused && !isRepeatable(error) && error.code !== "23505") || Date.now() - since > patienceMs)
          return Exit.fail(eventStoreError("append", aggregate)(error))
        await pause(failures)
      }
    }
  }
}
