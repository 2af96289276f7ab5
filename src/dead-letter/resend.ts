// Sends the message of a dead letter again, exactly once: the order of the steps, over a sender and a journal that adapters provide.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

/** The message cannot be sent, and waiting does not help. The dead letter stays parked with the reason, for a person to see. */
export class DeadLetterRejected extends Schema.TaggedError<DeadLetterRejected>()("DeadLetterRejected", {
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}
/** It is unknown whether the message was stored. The dead letter stays `retrying`, and the next retry looks for the message first. */
export class DeadLetterInDoubt extends Schema.TaggedError<DeadLetterInDoubt>()("DeadLetterInDoubt", {
  part: Schema.String
}) {
  override get message() {
    return `${this.part}: the broker dropped the message as a duplicate, but the topic does not have it. try: the same command again`
  }
}

/** Where the message of a dead letter is sent. */
export interface ResendTarget {
  /** The partition, by the target system's name for it. */
  readonly part: string
  /** A position in the system's notation, behind which the message will be; empty: the beginning. */
  readonly after: string
}
/** An attempt to send, as the journal has it before the message is sent. */
export interface ResendAttempt extends ResendTarget {
  /** Grows with each new attempt. A broker that deduplicates drops a message whose number is not above the last one. */
  readonly number: number
  /** This attempt was begun before and not finished, so the message may be stored. */
  readonly resumed: boolean
}
/** Keeps, for one dead letter, what was attempted and decided. */
export interface ResendJournal<E> {
  /**
   * Notes an attempt to send to `target`, or returns the unfinished attempt of before. Undefined: the dead letter was already retried or
   * discarded.
   */
  readonly begin: (target: ResendTarget) => Effect.Effect<ResendAttempt | undefined, E>
  /** Notes a new attempt in place of an unfinished one, once it is known that the message was not stored. */
  readonly again: (target: ResendTarget) => Effect.Effect<ResendAttempt | undefined, E>
  /** The message is stored: the dead letter is retried. */
  readonly end: Effect.Effect<unknown, E>
  /** The message was rejected and is not stored: the dead letter is parked again. */
  readonly undo: (reason: string) => Effect.Effect<unknown, E>
}
/** Sends dead letters of one kind to one system. One process at a time can send; a process that could before is fenced. */
export interface DeadLetterSender<in DeadLetter, out E> {
  /** Where a dead letter goes. Fences other processes until the scope closes, which is the scope of all that are sent. */
  readonly aim: (deadLetter: DeadLetter) => Effect.Effect<ResendTarget, E | DeadLetterRejected, Scope.Scope>
  /** Whether the message is stored behind the target's position. */
  readonly isThere: (deadLetter: DeadLetter, target: ResendTarget) => Effect.Effect<boolean, E>
  /** Sends the message. False: the broker dropped it as a duplicate. */
  readonly send: (
    deadLetter: DeadLetter,
    to: ResendAttempt
  ) => Effect.Effect<boolean, E | DeadLetterRejected, Scope.Scope>
}

/**
 * Sends the message of a dead letter exactly once. The attempt is noted first, with the end of the topic; after an unfinished attempt the
 * message is looked for behind that position. A resumed attempt keeps its number, so that a broker that deduplicates stores one of the two
 * messages, even if the first one arrives late. Returns false if the dead letter was already retried or discarded.
 */
export const resend = Effect.fnUntraced(function* <DeadLetter, E, F>(
  deadLetter: DeadLetter,
  { aim, isThere, send }: DeadLetterSender<DeadLetter, E>,
  journal: ResendJournal<F>
): Effect.fn.Return<boolean, E | F | DeadLetterRejected | DeadLetterInDoubt, Scope.Scope> {
  const target = yield* aim(deadLetter)
  const noted = yield* journal.begin(target)
  if (noted === undefined) return false
  const attempt = (to: ResendAttempt) =>
    send(deadLetter, to).pipe(
      Effect.tapError((error) => (error instanceof DeadLetterRejected ? journal.undo(error.reason) : Effect.void)),
      Effect.flatMap((stored) => (stored ? Effect.succeed(true) : isThere(deadLetter, to)))
    )
  let isStored = noted.resumed && (yield* isThere(deadLetter, noted))
  // the target differs if partitions, or a rule, were changed since the attempt
  if (!isStored && noted.part === target.part) isStored = yield* attempt(noted)
  if (!isStored) {
    // others may have been sent since the attempt that had the number, and then it cannot arrive any more
    const next = yield* journal.again(target)
    if (next === undefined) return false
    isStored = yield* attempt(next)
  }
  if (!isStored) return yield* new DeadLetterInDoubt({ part: target.part })
  yield* journal.end
  return true
})
