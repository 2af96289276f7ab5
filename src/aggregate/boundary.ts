// Decisions over tags: read the events that have some tags, decide on a state of them, and append if no event with these tags came between.
import { randomUUID } from "node:crypto"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { type Aggregate, type Decision, decisionOf, type Rejection } from "../model/aggregate.ts"
import type { Member, Named } from "../model/fields.ts"
import { checkedFunction } from "../model/user-code.ts"
import { shown } from "../text/text.ts"
import {
  answerAgain,
  answeredBefore,
  backoff,
  type Executed,
  executedOf,
  mostTries,
  repeatedAnswer,
  settle,
  tooManyTries
} from "./chain.ts"
import { type CommandContext, contextProblem, decideOn, type Decider, digestOf, type Outcome } from "./command.ts"
import { BoundaryMoved, VersionConflict } from "./errors.ts"
import type { EventStore, RecordedEvent } from "./event-store.ts"
import { AggregateFailed, InvalidCommand, reasonOf } from "./failures.ts"
import { decodeEvent } from "./state.ts"
import { withTags } from "./tag-locks.ts"

type Store = EventStore["Service"]

/** A decision over tags. */
export interface DecisionWithin<S, Ev, D extends Decision<Ev>> {
  /** The stream that gets the decided events. */
  readonly stream: string
  /**
   * The boundary: the decision is valid only if no event with one of these tags is appended between the read and the append. The values of
   * tags that the aggregate declares, as `{ course: "c1", student: "s1" }`.
   */
  readonly tags: { readonly [tag: string]: string | ReadonlyArray<string> }
  /** The state before the first event of the boundary. */
  readonly initial: S
  /** The state of the boundary's events. Types without a function do not matter to the decision. */
  readonly evolve: { readonly [T in TypeName<Ev>]?: (state: S, event: Member<Ev, T>) => NoInfer<S> }
  /** Returns one new event, an array of them (which may be empty), or a rejection. Pure: it may run several times. */
  readonly decide: (state: S) => D
  /** What is asked for, as JSON: with a `commandId` it tells a repeated command from another one with the same id. */
  readonly command?: { readonly type: string; readonly [field: string]: unknown }
}
type TypeName<Ev> = Ev extends { readonly type: infer T extends string } ? T : never
/** How a decision over tags is executed. */
export interface DecideWithinOptions {
  /** As in `Aggregate.execute`: the same id on the same stream gets the answer of the first time. */
  readonly commandId?: string | undefined
  /** What every decided event carries; as in `Aggregate.execute`. */
  readonly context?: CommandContext | undefined
}

/** A decision over tags, with types that are no longer needed. */
interface Within {
  readonly stream: string
  readonly tags: ReadonlyArray<string>
  readonly types: ReadonlyArray<string>
  readonly initial: unknown
  readonly evolve: (state: unknown, event: Named) => unknown
  readonly decide: (state: unknown) => unknown
  readonly command: Named | undefined
}
const tagTexts = (aggregate: Aggregate.Any, tags: DecisionWithin<unknown, unknown, never>["tags"]) => {
  const texts = Object.entries(tags).flatMap(([name, given]) => {
    if (!aggregate.tagNames.includes(name))
      throw new Error(
        `it names the tag \`${name}\`, which the aggregate does not declare; it declares ${aggregate.tagNames.join(", ") || "none"}`
      )
    return (typeof given === "string" ? [given] : given).map((text: unknown) => {
      if (typeof text !== "string" || text === "") throw new Error(`its tag \`${name}\` is ${shown(text)}; give a text`)
      return `${name}:${text}`
    })
  })
  if (texts.length === 0) throw new Error("it has no tag; name at least one in `tags`")
  return [...new Set(texts)].toSorted()
}
const synchronous = "write a synchronous function; what it needs from elsewhere must be read before"
/** Checks a decision. Throws an error that says what is wrong. */
const checkedWithin = (aggregate: Aggregate.Any, given: DecisionWithin<never, never, never>): Within => {
  const functions = given.evolve as Readonly<Record<string, (state: never, event: never) => unknown>>
  const types = Object.keys(functions).filter((type) => functions[type] !== undefined)
  const unknown = types.find((type) => !aggregate.eventTypes.has(type))
  if (unknown !== undefined)
    throw new Error(`\`evolve\` has a function for \`${unknown}\`, which is no event type of ${aggregate.name}`)
  if (types.length === 0) throw new Error("`evolve` has no function; add one for each event type that matters")
  const evolve = new Map(
    types.map((type) => [type, checkedFunction(`\`evolve\` of ${type}`, functions[type]!, synchronous)])
  )
  const decide = checkedFunction("`decide`", given.decide, synchronous)
  return {
    stream: given.stream,
    tags: tagTexts(aggregate, given.tags),
    types,
    initial: given.initial,
    command: given.command,
    decide: (state) => decisionOf("`decide`", decide(state as never)),
    evolve: (state, event) => {
      const run = evolve.get(event.type)
      if (run === undefined) return state
      const next = run(state as never, event as never)
      if (next !== undefined) return next
      throw new Error(`\`evolve\` of ${event.type} returned undefined; it must return the new state`)
    }
  }
}

const foldBoundary = (
  aggregate: Aggregate.Any,
  { command, evolve, initial, stream }: Within,
  events: ReadonlyArray<RecordedEvent>
) => {
  let state = initial
  for (const recorded of events) {
    const event = decodeEvent<Named>(aggregate, recorded)
    try {
      state = evolve(state, event)
    } catch (cause) {
      const reason = `event ${recorded.version} of ${shown(recorded.stream)}: ${reasonOf(cause)}`
      const error = {
        aggregate: aggregate.name,
        stream,
        command: command?.type,
        operation: "evolve",
        reason,
        cause
      } as const
      throw new AggregateFailed(error)
    }
  }
  return state
}
/** Whether the boundary moved, or the stream grew while rows of inline projections were computed for it. */
const isMoved = (cause: Cause.Cause<unknown>): boolean => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return error instanceof BoundaryMoved || (error instanceof VersionConflict && error.expected === "any")
}

const decideAndAppend = Effect.fnUntraced(function* (
  store: Store,
  aggregate: Aggregate.Any,
  within: Within,
  {
    commandId,
    context,
    digest
  }: { readonly commandId: string; readonly context: CommandContext; readonly digest: string | undefined }
) {
  const { stream, tags, types } = within
  const of = { aggregate, stream }
  const queued = { commandId, digest, expected: "any" } as const
  const before = digest === undefined ? undefined : yield* answeredBefore(store, of, queued)
  if (before !== undefined) return yield* answerAgain(of, before)
  const { command, decide, evolve } = within
  const decider: Decider<unknown> = { aggregate, stream, command: command?.type, commandId, context, decide, evolve }
  let outcome: Outcome<unknown, unknown> | undefined
  let decidedOn = 0
  for (let tries = 1; tries <= mostTries; tries++) {
    const { boundary, events } = yield* store.readBoundary(aggregate.name, { tags, types })
    // events of other types moved the boundary, or none did: then the decision stands
    if (outcome === undefined || events.length !== decidedOn) {
      const state = yield* Effect.try({ try: () => foldBoundary(aggregate, within, events), catch: (error) => error })
      outcome = decideOn<unknown, unknown>(decider, state)
      decidedOn = events.length
    }
    if (outcome.kind !== "events") {
      const { version } = yield* store.load(aggregate.name, stream, { limit: 1 })
      return yield* settle(store, of, { queued, version, outcome })
    }
    const append = { aggregate: aggregate.name, stream, expected: "any", events: outcome.recorded } as const
    const exit = yield* Effect.exit(
      store.appendAll([digest === undefined ? append : { ...append, digest }], commandId, boundary)
    )
    if (Exit.isSuccess(exit)) {
      const [appended] = exit.value
      const isRepeat = appended!.repeated && digest !== undefined
      return isRepeat ? yield* repeatedAnswer(store, of, queued) : executedOf(of, appended!, outcome.events)
    }
    if (!isMoved(exit.cause)) return yield* Effect.failCause(exit.cause)
    yield* backoff(tries)
  }
  return yield* tooManyTries(aggregate.name, stream)
})

/** Decides over tags; see `Aggregate.decideWithin`. */
export const decideWithin = Effect.fnUntraced(function* (
  store: Store,
  aggregate: Aggregate.Any,
  given: DecisionWithin<never, never, never>,
  { commandId, context }: { readonly commandId: string | undefined; readonly context: CommandContext }
): Effect.fn.Return<Executed<unknown>, unknown> {
  const within = yield* Effect.try({
    try: () => {
      const problem = contextProblem(context)
      if (problem !== undefined) throw new Error(problem)
      return checkedWithin(aggregate, given)
    },
    catch: (error) =>
      new InvalidCommand({
        aggregate: aggregate.name,
        command: given.command?.type ?? "of a decision over tags",
        reason: reasonOf(error)
      })
  })
  const { command, stream, tags } = within
  const digest = commandId === undefined ? undefined : digestOf({ tags, command })
  const id = commandId ?? randomUUID()
  const decision = decideAndAppend(store, aggregate, within, { commandId: id, context, digest })
  return yield* withTags(store, { aggregate: aggregate.name, stream, tags }, decision)
})
/** The rejections of a decision. */
export type RejectionOf<D> = Extract<D, Rejection>
