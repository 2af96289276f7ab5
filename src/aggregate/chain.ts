// A chain: commands of one stream that are decided one after another and appended together. What another process's append invalidates is
// decided again.
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { SubjectErased } from "../erasure/errors.ts"
import type { Aggregate } from "../model/aggregate.ts"
import { withHiddenMessage } from "../dead-letter/event-failure.ts"
import { hasPersonalData } from "../model/erasures.ts"
import {
  answerOfRejection,
  asRejection,
  type CommandContext,
  decideOn,
  type Outcome,
  rejectionOfAnswer
} from "./command.ts"
import { EventStoreError, EventTimeRefused, VersionConflict } from "./errors.ts"
import type { Answer, Append, Appended, AppendError, EventStore, Expected } from "./event-store.ts"
import { AggregateFailed, StreamBusy } from "./failures.ts"
import { decodeEvent, loadState, shapeOf, snapshotText, type StreamState } from "./state.ts"

type Store = EventStore["Service"]

/** A command that waits for its decision. */
export interface QueuedCommand {
  readonly command: { readonly type: string }
  readonly commandId: string
  /** Of the command, if its id came from the caller: then the same id always gets the same answer. */
  readonly digest: string | undefined
  readonly expected: Expected
  readonly context: CommandContext
  readonly timer: string | undefined
  readonly answer: Deferred.Deferred<Executed<unknown>, unknown>
  /** How often it was decided. */
  tries: number
  /** Nobody waits for the answer any more. */
  isCancelled: boolean
}
/** What a command did. */
export interface Executed<out Ev> {
  /** The stream's version after the command. */
  readonly version: number
  /** The events that the command appended; empty if it decided none. */
  readonly events: ReadonlyArray<Ev>
  /** The same command was executed before, and this is its answer of then. */
  readonly repeated: boolean
  /** Where the last of the events is in the log; undefined if there are none. */
  readonly position: { readonly topic: string; readonly partition: number; readonly position: number } | undefined
}
/** A stream of an aggregate. */
export interface StreamOf {
  readonly aggregate: Aggregate.Any
  readonly stream: string
}
/** The stream of a chain, with its state in memory. */
export interface ChainStream extends StreamOf {
  state: StreamState<unknown> | undefined
  /** What is in memory was erased meanwhile: the state is not kept. */
  isOutdated: boolean
  isSavingSnapshot: boolean
}

/** How often a command is decided at most, while others append to its stream. */
export const mostTries = 20
const [firstDelayMs, longestDelayMs] = [4, 250]
/** How long to wait before a command is decided again: longer each time, and by chance, so that processes do not meet again. */
export const backoff = (tries: number): Effect.Effect<void> =>
  Effect.suspend(() => Effect.sleep(Math.random() * Math.min(longestDelayMs, firstDelayMs * 2 ** tries)))
/** The error after too many tries. */
export const tooManyTries = (aggregate: string, stream: string): StreamBusy =>
  new StreamBusy({ aggregate, stream, reason: `others appended to it in each of ${mostTries} tries` })

type EventsOutcome = Extract<Outcome<unknown, unknown>, { readonly kind: "events" }>
/** A command of a chain, with what it decided. */
interface Step extends Settled {
  readonly queued: QueuedCommand
}
/** What a command decided on which version. `conflict`: the stream is not as the caller expected. */
interface Settled {
  readonly queued: Pick<QueuedCommand, "commandId" | "digest" | "expected">
  readonly version: number
  readonly outcome: Outcome<unknown, unknown> | { readonly kind: "conflict" }
}

const isMet = (expected: Expected, version: number): boolean => {
  if (expected === "any") return true
  if (expected === "exists") return version > 0
  return version === (expected === "noStream" ? 0 : expected)
}
/** A command with the expectation "any" or "exists" may be decided again on another version. */
const isRetried = ({ expected }: QueuedCommand): boolean => expected === "any" || expected === "exists"

/**
 * Decides commands one after another. Undefined if one of them appends nothing, and the state it was decided on may not be the newest:
 * nothing would notice that. An append notices, so what follows one is certain if the append passes.
 */
const decideAll = (
  { aggregate, stream }: ChainStream,
  from: StreamState<unknown>,
  commands: ReadonlyArray<QueuedCommand>,
  isNewest: boolean
): { readonly steps: ReadonlyArray<Step>; readonly state: StreamState<unknown> } | undefined => {
  let { state, version } = from
  const subjects = new Set(from.subjects)
  let isCertain = isNewest
  const steps: Array<Step> = []
  for (const queued of commands) {
    const { command, commandId, context } = queued
    const outcome: Step["outcome"] = isMet(queued.expected, version)
      ? decideOn(
          {
            aggregate,
            stream,
            command: command.type,
            commandId,
            context,
            decide: (current) => aggregate.decide(current, command),
            evolve: aggregate.evolve
          },
          state
        )
      : { kind: "conflict" }
    if (outcome.kind !== "events" && !isCertain) return undefined
    steps.push({ queued, version, outcome })
    if (outcome.kind !== "events") continue
    isCertain = true
    state = outcome.state
    version += outcome.events.length
    for (const subject of outcome.recorded.flatMap((event) => event.subjects ?? [])) subjects.add(subject)
  }
  return { steps, state: { ...from, state, version, subjects } }
}

const conflictOf = (cause: Cause.Cause<AppendError>): VersionConflict | undefined => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return error instanceof VersionConflict ? error : undefined
}
/** The cause, whose error names the command that could not be decided. */
const namingCommand = <E>(cause: Cause.Cause<E>, command: string): Cause.Cause<unknown> =>
  Cause.map(cause, (error) => (error instanceof AggregateFailed ? new AggregateFailed({ ...error, command }) : error))
export const executedOf = (
  { aggregate }: Pick<ChainStream, "aggregate">,
  { partition, position, version }: Pick<Appended, "partition" | "position" | "version">,
  events: ReadonlyArray<unknown>,
  repeated = false
): Executed<unknown> => ({
  version,
  events,
  repeated,
  position:
    events.length === 0 ? undefined : { topic: aggregate.name, partition, position: position + events.length - 1 }
})
/** Answers as the command was answered before. */
export const answerAgain = (
  { aggregate }: Pick<ChainStream, "aggregate">,
  answer: Answer
): Effect.Effect<Executed<unknown>, unknown> =>
  Effect.suspend(() => {
    if (answer.rejection !== undefined) return Effect.fail(rejectionOfAnswer(aggregate, answer.rejection))
    const events = answer.events.map((event) => decodeEvent<unknown>(aggregate, event))
    return Effect.succeed(executedOf({ aggregate }, answer, events, true))
  }).pipe(Effect.catchDefect((error) => Effect.fail(error)))
/** What the command was answered before; undefined if it was not. */
export const answeredBefore = Effect.fnUntraced(function* (
  store: Store,
  { aggregate, stream }: StreamOf,
  { commandId, digest }: Pick<QueuedCommand, "commandId" | "digest">
) {
  const asked = { commandId, limit: 1, ...(digest === undefined ? {} : { digest }) }
  return (yield* store.load(aggregate.name, stream, asked)).answered
})
/** The answer of a command that the store has already. */
export const repeatedAnswer = Effect.fnUntraced(function* (
  store: Store,
  chain: StreamOf,
  queued: Pick<QueuedCommand, "commandId" | "digest">
) {
  const before = yield* answeredBefore(store, chain, queued)
  if (before !== undefined) return yield* answerAgain(chain, before)
  // it was pruned since
  return yield* new EventStoreError({
    operation: "load",
    aggregate: chain.aggregate.name,
    retryable: true,
    reason: "the command was answered before, but its answer was not found"
  })
})

/** Whether the append would be refused although the same command was appended before. */
const isRefusedSince = (cause: Cause.Cause<AppendError>): boolean => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return error instanceof SubjectErased || error instanceof EventTimeRefused
}
/** The answer that the command got before its subject was erased, or a limit of event times was lowered; else the cause. */
const answeredOr = Effect.fnUntraced(function* (
  store: Store,
  chain: ChainStream,
  queued: QueuedCommand,
  cause: Cause.Cause<unknown>
) {
  const before = yield* answeredBefore(store, chain, queued)
  return yield* before === undefined ? Effect.failCause(cause) : answerAgain(chain, before)
})
/** The answer of a command that appends nothing. With the caller's id it is remembered, so that it stays the answer. */
export const settle = Effect.fnUntraced(function* (
  store: Store,
  chain: StreamOf,
  { outcome, queued, version }: Settled
) {
  const { aggregate, stream } = chain
  const { commandId, digest, expected } = queued
  const before = digest === undefined ? undefined : yield* answeredBefore(store, chain, queued)
  if (before !== undefined) return yield* answerAgain(chain, before)
  if (outcome.kind === "conflict")
    return yield* new VersionConflict({ aggregate: aggregate.name, stream, expected, actual: version })
  if (outcome.kind === "failed") return yield* outcome.error
  const rejection = outcome.kind === "nothing" ? outcome.rejection : undefined
  if (digest !== undefined) {
    const decided = { version, ...(rejection === undefined ? {} : { rejection: answerOfRejection(rejection) }) }
    const answer = yield* store.remember(aggregate.name, stream, commandId, digest, decided, expected)
    // a copy of the command was answered since
    if (answer.repeated) return yield* answerAgain(chain, answer)
  }
  if (rejection !== undefined) return yield* Effect.fail(asRejection(rejection))
  return executedOf(chain, { version, partition: 0, position: 0 }, [])
})

/** Stores a snapshot of the state if it is far enough from the last one. Waits for nothing, and fails no command. */
const saveSnapshot = (store: Store, chain: ChainStream) =>
  Effect.suspend((): Effect.Effect<unknown> => {
    const { aggregate, state, stream } = chain
    const every = aggregate.snapshotEvery
    if (state === undefined || every === undefined || chain.isSavingSnapshot) return Effect.void
    if (state.version - state.snapshotVersion < every) return Effect.void
    chain.isSavingSnapshot = true
    const save = Effect.gen(function* () {
      const personal = hasPersonalData(aggregate)
      const text = yield* Effect.try({
        try: () => snapshotText(aggregate, state),
        // it is logged, and may quote the state
        catch: (error) => (personal ? withHiddenMessage(error) : error)
      })
      const { subjects, version } = state
      const snapshot = { shape: shapeOf(aggregate), version, state: text, subjects: [...subjects], personal }
      yield* store.saveSnapshot(aggregate.name, stream, snapshot)
    })
    return save.pipe(
      Effect.catchCause((cause) =>
        Effect.logWarning(
          `no snapshot of ${aggregate.name} was stored, so loads of its streams read more events`,
          cause
        )
      ),
      Effect.ensuring(
        Effect.sync(() => {
          chain.isSavingSnapshot = false
          // after a failure as well: the next try comes after as many events
          if (chain.state !== undefined) chain.state = { ...chain.state, snapshotVersion: state.version }
        })
      ),
      Effect.forkDetach
    )
  })

/** The state for a chain, and what its commands decide on it. */
const decideChain = Effect.fnUntraced(function* (
  store: Store,
  chain: ChainStream,
  commands: ReadonlyArray<QueuedCommand>
) {
  const known = chain.state
  const decided = known === undefined ? undefined : decideAll(chain, known, commands, false)
  if (decided !== undefined) return decided
  const newest = yield* loadState<unknown>(store, chain.aggregate, chain.stream, { from: known })
  return decideAll(chain, newest, commands, true)!
})
const appendOf = ({ aggregate, stream }: ChainStream, step: Step, outcome: EventsOutcome, follows?: string): Append => {
  const { digest, timer } = step.queued
  return {
    aggregate: aggregate.name,
    stream,
    expected: step.version,
    events: outcome.recorded,
    ...(follows === undefined ? {} : { follows }),
    ...(digest === undefined ? {} : { digest }),
    ...(timer === undefined ? {} : { timer })
  }
}

/**
 * Decides commands of one stream and appends what they decide, all at once; answers them. Returns those that have to be decided again,
 * because something else was appended to the stream.
 */
export const runChain = Effect.fnUntraced(function* (
  store: Store,
  chain: ChainStream,
  commands: ReadonlyArray<QueuedCommand>
): Effect.fn.Return<ReadonlyArray<QueuedCommand>> {
  if (commands.length === 0) return []
  const exit = yield* Effect.exit(decideChain(store, chain, commands))
  chain.state = undefined
  if (Exit.isFailure(exit)) {
    for (const { answer, command } of commands)
      yield* Deferred.failCause(answer, namingCommand(exit.cause, command.type))
    return []
  }
  const { state, steps } = exit.value
  const appends = new Map<Step, Fiber.Fiber<Appended, AppendError>>()
  let follows: string | undefined
  for (const step of steps) {
    const { outcome, queued } = step
    if (outcome.kind !== "events") continue
    const append = store.append(appendOf(chain, step, outcome, follows), queued.commandId)
    appends.set(step, yield* Effect.forkChild(append, { startImmediately: true }))
    follows = queued.commandId
  }
  const again: Array<QueuedCommand> = []
  const answers: Array<Fiber.Fiber<unknown>> = []
  const answer = Effect.fnUntraced(function* (
    queued: QueuedCommand,
    effect: Effect.Effect<Executed<unknown>, unknown>
  ) {
    answers.push(yield* Effect.forkChild(Deferred.into(effect, queued.answer)))
  })
  let isBroken = false
  for (const step of steps) {
    const { outcome, queued } = step
    const fiber = appends.get(step)
    if (fiber === undefined || outcome.kind !== "events") {
      if (isBroken) again.push(queued)
      else yield* answer(queued, settle(store, chain, step))
      continue
    }
    const appended = yield* Fiber.await(fiber)
    const wasBroken = isBroken
    // an id of this process was never used before: its append was only made again, after a lost reply
    const isRepeat = Exit.isSuccess(appended) && appended.value.repeated && queued.digest !== undefined
    isBroken ||= Exit.isFailure(appended) || isRepeat
    if (Exit.isSuccess(appended)) {
      if (isRepeat) yield* answer(queued, repeatedAnswer(store, chain, queued))
      else yield* Deferred.succeed(queued.answer, executedOf(chain, appended.value, outcome.events))
      continue
    }
    const conflict = conflictOf(appended.cause)
    if (conflict === undefined && queued.digest !== undefined && isRefusedSince(appended.cause))
      yield* answer(queued, answeredOr(store, chain, queued, appended.cause))
    else if (conflict === undefined) yield* Deferred.failCause(queued.answer, appended.cause)
    else if (isRetried(queued) || wasBroken) {
      queued.tries++
      if (queued.tries < mostTries) again.push(queued)
      else yield* Deferred.fail(queued.answer, tooManyTries(chain.aggregate.name, chain.stream))
    } else yield* answer(queued, Effect.fail(new VersionConflict({ ...conflict, expected: queued.expected })))
  }
  yield* Effect.forEach(answers, Fiber.await, { discard: true })
  if (!isBroken && !chain.isOutdated) chain.state = state
  chain.isOutdated = false
  yield* saveSnapshot(store, chain)
  const tries = Math.max(0, ...again.map((queued) => queued.tries))
  if (tries > 0) yield* backoff(tries)
  return again
})
