// Writes the dead letters of a bridge stream from Pulsar to its error topic on Pulsar, each once, before the stream's position passes them.
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type DeadLetterOwner, isFrom } from "./dead-letter.ts"
import { BridgeError } from "./errors.ts"
import { offsetHeader } from "./headers.ts"
import { formatPosition, type PulsarPosition } from "./pulsar-position.ts"
import type { PulsarProducer, PulsarSide } from "./pulsar-side.ts"
import type { BridgeRecord } from "./record.ts"

/** Where a stream's dead letters go. */
export interface DeadLetterWriterOptions {
  readonly pulsar: PulsarSide
  /** The error topic. */
  readonly topic: string
  /** The stream that writes, by which its dead letters are known from those of other streams in the topic. */
  readonly owner: DeadLetterOwner
  /** The producer's name. */
  readonly name: string
  /** All dead letters up to here are of messages that the stream's position has passed; undefined if not known. */
  readonly after: PulsarPosition | undefined
}

/** Whether a position fits into one number of 53 bits that ascends with it. */
const hasNumber = ({ batch, entry, ledger }: PulsarPosition) => ledger < 2 ** 22 && entry < 2 ** 21 && batch < 2 ** 10
const numberOf = ({ batch, entry, ledger }: PulsarPosition) => ledger * 2 ** 31 + entry * 2 ** 10 + Math.max(batch, 0)

/** Writes dead letters. Opens the error topic on first use. */
export class DeadLetterWriter {
  /** The last position of the error topic that the writer has seen. */
  end: PulsarPosition | undefined
  readonly topic: string
  private readonly options: DeadLetterWriterOptions
  private partition: string
  private producer: PulsarProducer | undefined
  /** For messages whose positions do not fit into a number. */
  private countingProducer: PulsarProducer | undefined
  private count = 0
  /** Formatted positions of messages whose dead letters were there when the topic was opened. */
  private readonly present = new Set<string>()

  constructor(options: DeadLetterWriterOptions) {
    this.options = options
    this.topic = options.topic
    this.partition = options.topic
    this.end = options.after
  }

  private readonly open = Effect.fnUntraced(function* (
    this: DeadLetterWriter
  ): Effect.fn.Return<PulsarProducer, BridgeError, Scope.Scope> {
    const { after, name, owner, pulsar } = this.options
    const [partition = this.topic] = yield* pulsar.partitionsOf(this.topic)
    this.partition = partition
    const producer = yield* pulsar.produce(partition, name, false)
    yield* pulsar.scan(partition, after, ({ position, record: { headers } }) => {
      this.end = position
      if (isFrom(owner, headers)) this.present.add(headers[offsetHeader] ?? "")
    })
    return (this.producer = producer)
  })
  private openCounting() {
    const { name, pulsar } = this.options
    return pulsar.produce(this.partition, `${name}/${randomUUID()}`, false)
  }

  /**
   * Writes the dead letters of messages at these positions; the topic has all of them when this succeeds. If the error topic itself refuses one
   * this fails for good, and the stream halts.
   */
  readonly write = Effect.fnUntraced(function* (
    this: DeadLetterWriter,
    deadLetters: ReadonlyArray<readonly [PulsarPosition, BridgeRecord]>
  ): Effect.fn.Return<void, BridgeError, Scope.Scope> {
    const named = this.producer ?? (yield* this.open())
    const missing = deadLetters.filter(([position]) => !this.present.has(formatPosition(position)))
    // without a number that ascends with the position the broker cannot recognize duplicates: only the scan above does
    const areCounted = !missing.every(([position]) => hasNumber(position))
    const producer = areCounted ? (this.countingProducer ??= yield* this.openCounting()) : named
    const records = missing.map(([position, record]) => ({
      record,
      sequenceId: areCounted ? this.count++ : numberOf(position)
    }))
    for (const result of yield* producer.send(records)) {
      if (result.kind === "stored") this.end = result.position
      if (result.kind === "refused")
        return yield* new BridgeError({
          side: "pulsar",
          operation: "write a dead letter",
          kind: "other",
          topic: this.topic,
          retryable: false,
          reason: result.reason
        })
    }
  })
}
