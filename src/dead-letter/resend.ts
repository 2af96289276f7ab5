// A dead letter's message sent again, once, whatever became of attempts before: what that needs of either side, and the order of the steps. It
// sends and notes nothing itself.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

/** It cannot be sent as things are, which is no matter of time: the letter stays, and a person must see why. */
export class DeadLetterRejected extends Schema.TaggedError<DeadLetterRejected>()("DeadLetterRejected", {
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}
/** Nobody can tell whether the message is there: the letter stays `retrying`, and the next retry looks. */
export class DeadLetterInDoubt extends Schema.TaggedError<DeadLetterInDoubt>()("DeadLetterInDoubt", {
  part: Schema.String
}) {
  override get message() {
    return `${this.part}: the broker says that it has the message, which is not there. try: the same command again`
  }
}

/** Where a message goes. */
export interface ResendTarget {
  /** A partition, by a name of the system's. */
  readonly part: string
  /** A place in it before which there is nothing of the letter, as the system writes it; empty: its beginning. */
  readonly after: string
}
/** What is written down before a message is sent. */
export interface ResendAttempt extends ResendTarget {
  /** Grows with each attempt that is written down. Brokers that count drop a message whose number is not above the last one. */
  readonly number: number
  /** An attempt before wrote it down and did not come to its end: the message may be there. */
  readonly resumed: boolean
}
/** Where it is written down what becomes of one letter. */
export interface ResendJournal<E> {
  /** It is about to be sent there; or where it was to be sent, by an attempt before. Undefined: it was retried or discarded. */
  readonly begin: (target: ResendTarget) => Effect.Effect<ResendAttempt | undefined, E>
  /** The same for an attempt that begins anew: it is known that the message is not there. */
  readonly again: (target: ResendTarget) => Effect.Effect<ResendAttempt | undefined, E>
  /** It is there. */
  readonly end: Effect.Effect<unknown, E>
  /** It was refused, and is not there. */
  readonly undo: (reason: string) => Effect.Effect<unknown, E>
}
/** One system to which letters of a kind go. One process at a time sends letters, and who did so before can send nothing more. */
export interface DeadLetterSender<in L, out E> {
  /** Where a letter goes, in the scope of all that are sent. Keeps others from sending there. */
  readonly aim: (letter: L) => Effect.Effect<ResendTarget, E | DeadLetterRejected, Scope.Scope>
  /** Whether the letter's message is there. */
  readonly isThere: (letter: L, target: ResendTarget) => Effect.Effect<boolean, E>
  /** Sends it. False: the broker dropped it as one that it has. */
  readonly send: (letter: L, to: ResendAttempt) => Effect.Effect<boolean, E | DeadLetterRejected, Scope.Scope>
}

/**
 * Sends a letter's message, once: noted first, with the place where its topic ends, and looked for behind that place where an attempt before did
 * not come to its end. An attempt that is resumed keeps its number, so that a broker that counts takes one of both, also where the first one arrives
 * late. False: it was retried or discarded before.
 */
export const resend = Effect.fnUntraced(function* <L, E, F>(
  letter: L,
  { aim, isThere, send }: DeadLetterSender<L, E>,
  notes: ResendJournal<F>
): Effect.fn.Return<boolean, E | F | DeadLetterRejected | DeadLetterInDoubt, Scope.Scope> {
  const target = yield* aim(letter)
  const noted = yield* notes.begin(target)
  if (noted === undefined) return false
  const attempt = (to: ResendAttempt) =>
    send(letter, to).pipe(
      Effect.tapError((error) => (error instanceof DeadLetterRejected ? notes.undo(error.reason) : Effect.void)),
      Effect.flatMap((taken) => (taken ? Effect.succeed(true) : isThere(letter, to)))
    )
  let there = noted.resumed && (yield* isThere(letter, noted))
  // elsewhere where partitions, or a rule, are others by now
  if (!there && noted.part === target.part) there = yield* attempt(noted)
  if (!there) {
    // if others were sent since the attempt that had the number, that cannot arrive any more
    const anew = yield* notes.again(target)
    if (anew === undefined) return false
    there = yield* attempt(anew)
  }
  if (!there) return yield* new DeadLetterInDoubt({ part: target.part })
  yield* notes.end
  return true
})
