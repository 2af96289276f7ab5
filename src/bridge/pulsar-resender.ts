// Sends the records of dead letters to Pulsar under one producer name, and finds out whether one that was sent has arrived.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type { BridgeError } from "./errors.ts"
import { formatPosition, parsePosition } from "./pulsar-position.ts"
import type { PulsarProducer, PulsarSide } from "./pulsar-side.ts"
import type { BridgeRecord } from "./record.ts"
import { DeadLetterRejected, type ResendAttempt, type ResendTarget } from "../dead-letter/resend.ts"

/** The broker frees the name of a process that was killed within this time: 20 s. */
const untilFree = { schedule: Schedule.spaced(250), times: 80 }

/** Turns errors that a later attempt would meet again, `refused` and `tooLarge`, into a rejection of the dead letter. */
export const orRejected = <A, R>(
  effect: Effect.Effect<A, BridgeError, R>
): Effect.Effect<A, BridgeError | DeadLetterRejected, R> =>
  Effect.mapError(effect, (error) =>
    error.kind === "refused" || error.kind === "tooLarge"
      ? new DeadLetterRejected({ reason: `${error.topic === undefined ? "" : `${error.topic}: `}${error.reason}` })
      : error
  )

interface OpenProducer {
  readonly producer: PulsarProducer
  readonly scope: Scope.Closeable
}
/** The only sender under its name. Sends one record at a time. */
export class PulsarResender {
  private readonly pulsar: PulsarSide
  private readonly name: string
  private readonly producers = new Map<string, OpenProducer>()

  constructor(pulsar: PulsarSide, name: string) {
    this.pulsar = pulsar
    this.name = name
  }
  private readonly producerOf = Effect.fnUntraced(function* (
    this: PulsarResender,
    partition: string
  ): Effect.fn.Return<OpenProducer, BridgeError, Scope.Scope> {
    const known = this.producers.get(partition)
    if (known !== undefined) return known
    const scope = yield* Scope.fork(yield* Effect.scope)
    const produce = Scope.provide(this.pulsar.produce(partition, this.name, false), scope)
    const producer = yield* Effect.retry(produce, { ...untilFree, while: ({ kind }) => kind === "busy" })
    const opened = { producer, scope }
    this.producers.set(partition, opened)
    return opened
  })

  /** Takes the name, so that nothing more is sent under it by an earlier process, then reads where the partition ends. */
  readonly aim = Effect.fnUntraced(function* (
    this: PulsarResender,
    partition: string
  ): Effect.fn.Return<ResendTarget, BridgeError | DeadLetterRejected, Scope.Scope> {
    yield* orRejected(this.producerOf(partition))
    // without the admin interface the end is unknown, and the whole partition is scanned
    const end = yield* this.pulsar.lastPosition(partition).pipe(Effect.orElseSucceed(() => undefined))
    return { part: partition, after: end === undefined ? "" : formatPosition(end) }
  })
  /** Whether the partition has a message with such headers after the target's position. */
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
  /** Returns false if the broker dropped the record as a duplicate. */
  readonly send = Effect.fnUntraced(function* (
    this: PulsarResender,
    { number, part }: ResendAttempt,
    record: BridgeRecord
  ): Effect.fn.Return<boolean, BridgeError | DeadLetterRejected, Scope.Scope> {
    const { producer, scope } = yield* this.producerOf(part)
    const sending = producer.send([{ record, sequenceId: number }])
    const [result] = yield* Effect.onError(sending, () => this.close(part, scope))
    if (result?.kind !== "refused") return result?.kind === "stored"
    // a producer whose message was refused may not be usable any more
    yield* this.close(part, scope)
    return yield* new DeadLetterRejected({ reason: result.reason })
  })
  private close(partition: string, scope: Scope.Closeable): Effect.Effect<void> {
    this.producers.delete(partition)
    return Scope.close(scope, Exit.void)
  }
}
