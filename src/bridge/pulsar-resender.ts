// Messages of dead letters that are sent to parts of Pulsar under one name, one at a time: opening, finding, sending. It knows no letter.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type { BridgeRecord } from "./rules.ts"
import type { BridgeError } from "./errors.ts"
import type { PulsarSide, PulsarProducer } from "./pulsar-side.ts"
import { parsePosition, formatPosition } from "./pulsar-position.ts"
import { DeadLetterRejected, type ResendAttempt, type ResendTarget } from "../dead-letter/resend.ts"

/** A name that a process has which was killed is given up by the broker after this long at most. */
const busy = { schedule: Schedule.spaced(250), times: 80 }

/** What is refused for what it is, or for where it goes. */
export const orRefused = <A, R>(
  effect: Effect.Effect<A, BridgeError, R>
): Effect.Effect<A, BridgeError | DeadLetterRejected, R> =>
  Effect.mapError(effect, (error) =>
    error.kind === "refused" || error.kind === "tooLarge"
      ? new DeadLetterRejected({ reason: `${error.topic === undefined ? "" : `${error.topic}: `}${error.reason}` })
      : error
  )

interface Open {
  readonly producer: PulsarProducer
  readonly scope: Scope.Closeable
}
/** The one sender of its name. */
export class PulsarResender {
  private readonly pulsar: PulsarSide
  private readonly name: string
  private readonly open = new Map<string, Open>()

  constructor(pulsar: PulsarSide, name: string) {
    this.pulsar = pulsar
    this.name = name
  }
  private readonly producerOf = Effect.fnUntraced(function* (
    this: PulsarResender,
    part: string
  ): Effect.fn.Return<Open, BridgeError, Scope.Scope> {
    const there = this.open.get(part)
    if (there !== undefined) return there
    const scope = yield* Scope.fork(yield* Effect.scope)
    const produce = Scope.provide(this.pulsar.produce(part, this.name, false), scope)
    const producer = yield* Effect.retry(produce, { ...busy, while: ({ kind }) => kind === "busy" })
    const made = { producer, scope }
    this.open.set(part, made)
    return made
  })

  /** Takes the name, so that the part's end is the last that anyone else sends under it. */
  readonly aim = Effect.fnUntraced(function* (
    this: PulsarResender,
    part: string
  ): Effect.fn.Return<ResendTarget, BridgeError | DeadLetterRejected, Scope.Scope> {
    yield* orRefused(this.producerOf(part))
    // who cannot ask for the end looks from the beginning
    const end = yield* this.pulsar.lastPosition(part).pipe(Effect.orElseSucceed(() => undefined))
    return { part, after: end === undefined ? "" : formatPosition(end) }
  })
  /** Whether a message of these headers is there. */
  readonly find = Effect.fnUntraced(function* (
    this: PulsarResender,
    { after, part }: ResendTarget,
    is: (headers: BridgeRecord["headers"]) => boolean
  ): Effect.fn.Return<boolean, BridgeError> {
    let found = false
    yield* this.pulsar.scan(part, parsePosition(after), ({ record }) => {
      found ||= is(record.headers)
    })
    return found
  })
  /** False: the broker dropped it. */
  readonly send = Effect.fnUntraced(function* (
    this: PulsarResender,
    { number, part }: ResendAttempt,
    record: BridgeRecord
  ): Effect.fn.Return<boolean, BridgeError | DeadLetterRejected, Scope.Scope> {
    const { producer, scope } = yield* this.producerOf(part)
    const one = producer.send([{ record, sequenceId: number }])
    const [sent] = yield* Effect.onError(one, () => this.forget(part, scope))
    if (sent?.kind !== "refused") return sent?.kind === "stored"
    // a producer that had something refused may be of no more use
    yield* this.forget(part, scope)
    return yield* new DeadLetterRejected({ reason: sent.reason })
  })
  private forget(part: string, scope: Scope.Closeable): Effect.Effect<void> {
    this.open.delete(part)
    return Scope.close(scope, Exit.void)
  }
}
