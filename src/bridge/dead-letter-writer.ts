// Writes the dead letters of a bridge stream from Pulsar to its error topic on Pulsar, each once, before the stream's position passes them.
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type DeadLetterOwner, isFrom } from "./dead-letter.ts"
import { BridgeError } from "./errors.ts"
import { offsetHeader } from "./headers.ts"
import { comparePositions, formatPosition, parsePosition, type PulsarPosition } from "./pulsar-position.ts"
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
  readonly topic: string
  private readonly options: DeadLetterWriterOptions
  private partition: string
  private producer: PulsarProducer | undefined
  /** For messages whose positions do not fit into a number, or whose number is below one that was sent. */
  private countingProducer: PulsarProducer | undefined
  private count = 0
  /** The highest number of a dead letter in the topic. The broker drops what the named producer sends below it. */
  private highest = -1
  /** The last position of the error topic that the writer has seen. */
  private end: PulsarPosition | undefined
  /** What `endFor` returned last. */
  private passed: PulsarPosition | undefined
  /** The messages whose dead letters are in the topic, and that `endFor` was not asked for yet, by formatted position. */
  private readonly present = new Map<string, PulsarPosition>()

  constructor(options: DeadLetterWriterOptions) {
    this.options = options
    this.topic = options.topic
    this.partition = options.topic
    this.end = options.after
    this.passed = options.after
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
      const of = isFrom(owner, headers) ? parsePosition(headers[offsetHeader] ?? "") : undefined
      if (of !== undefined) this.noteStored(of)
    })
    return (this.producer = producer)
  })
  private noteStored(of: PulsarPosition) {
    this.present.set(formatPosition(of), of)
    if (hasNumber(of)) this.highest = Math.max(this.highest, numberOf(of))
  }
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
    // a message can turn out to be refused after dead letters of later ones were written: the broker would drop its number as a duplicate
    const isNumbered = ([position]: readonly [PulsarPosition, BridgeRecord]) =>
      hasNumber(position) && numberOf(position) > this.highest
    const [numbered, others] = [missing.filter(isNumbered), missing.filter((one) => !isNumbered(one))]
    if (others.length > 0) {
      const producer = (this.countingProducer ??= yield* this.openCounting())
      yield* this.send(producer, others, () => this.count++)
    }
    yield* this.send(named, numbered, numberOf)
  })
  private readonly send = Effect.fnUntraced(function* (
    this: DeadLetterWriter,
    producer: PulsarProducer,
    deadLetters: ReadonlyArray<readonly [PulsarPosition, BridgeRecord]>,
    sequenceIdOf: (position: PulsarPosition) => number
  ): Effect.fn.Return<void, BridgeError> {
    const records = deadLetters.map(([position, record]) => ({ record, sequenceId: sequenceIdOf(position) }))
    for (const [i, result] of (yield* producer.send(records)).entries()) {
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
      this.noteStored(deadLetters[i]![0])
    }
  })

  /**
   * Where the next session is to scan the error topic from if the stream's position is this one: all dead letters up to there are of messages
   * that it has passed. Dead letters of later messages can be there already, if a commit failed after they were written. Positions must ascend.
   */
  endFor(position: PulsarPosition): PulsarPosition | undefined {
    for (const [text, of] of this.present) if (comparePositions(of, position) <= 0) this.present.delete(text)
    if (this.present.size === 0) this.passed = this.end
    return this.passed
  }
}
