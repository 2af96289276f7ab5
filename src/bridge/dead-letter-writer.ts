// Dead letters of a stream from Pulsar: sent to a topic of Pulsar before the position passes them, each once. It decides about none.
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BridgeRecord } from "./rules.ts"
import type { BridgeError } from "./errors.ts"
import type { PulsarSide, PulsarProducer } from "./pulsar-side.ts"
import { BridgeError as Failure } from "./errors.ts"
import { type PulsarPosition, formatPosition } from "./pulsar-position.ts"
import { isFrom } from "./dead-letter.ts"
import { offsetHeader } from "./route.ts"

/** Where a stream's dead letters go. */
export interface LettersOptions {
  readonly pulsar: PulsarSide
  readonly topic: string
  /** Whose they are, as their headers tell it: another rule's of the same part are others. */
  readonly of: { readonly bridge: string; readonly rule: string; readonly stream: string }
  /** The producer's name. */
  readonly name: string
  /** A place before which there are no letters that the position has not passed; undefined: unknown. */
  readonly after: PulsarPosition | undefined
}

/** As far as a place fits into one ascending number of 53 bits. */
const numbered = ({ batch, entry, ledger }: PulsarPosition) => ledger < 2 ** 22 && entry < 2 ** 21 && batch < 2 ** 10
const numberOf = ({ batch, entry, ledger }: PulsarPosition) => ledger * 2 ** 31 + entry * 2 ** 10 + Math.max(batch, 0)

/** Sends dead letters. */
export class Letters {
  /** Up to where there are letters that it knows. */
  position: PulsarPosition | undefined
  readonly topic: string
  private readonly options: LettersOptions
  private part: string
  private producer: PulsarProducer | undefined
  /** Of letters whose places have no number. */
  private counting: PulsarProducer | undefined
  private count = 0
  private readonly present = new Set<string>()

  constructor(options: LettersOptions) {
    this.options = options
    this.topic = options.topic
    this.part = options.topic
    this.position = options.after
  }

  private readonly open = Effect.fnUntraced(function* (
    this: Letters
  ): Effect.fn.Return<PulsarProducer, BridgeError, Scope.Scope> {
    const { after, name, of, pulsar } = this.options
    const [part = this.topic] = yield* pulsar.partitionsOf(this.topic)
    this.part = part
    const producer = yield* pulsar.produce(part, name, false)
    yield* pulsar.scan(part, after, ({ position, record: { headers } }) => {
      this.position = position
      if (isFrom(of, headers)) this.present.add(headers[offsetHeader] ?? "")
    })
    return (this.producer = producer)
  })

  private another() {
    const { name, pulsar } = this.options
    return pulsar.produce(this.part, `${name}/${randomUUID()}`, false)
  }

  /** All of them are there when this answers. What the topic of dead letters itself refuses fails, and the stream stands still. */
  readonly send = Effect.fnUntraced(function* (
    this: Letters,
    letters: ReadonlyArray<readonly [PulsarPosition, BridgeRecord]>
  ): Effect.fn.Return<void, BridgeError, Scope.Scope> {
    const named = this.producer ?? (yield* this.open())
    const missing = letters.filter(([position]) => !this.present.has(formatPosition(position)))
    // where no number ascends with a place, only what is there already tells a letter that was sent before
    const counted = !missing.every(([position]) => numbered(position))
    const producer = counted ? (this.counting ??= yield* this.another()) : named
    const messages = missing.map(([position, record]) => ({
      record,
      sequenceId: counted ? this.count++ : numberOf(position)
    }))
    const sent = yield* producer.send(messages)
    for (const one of sent) {
      if (one.kind === "stored") this.position = one.position
      if (one.kind === "refused")
        return yield* new Failure({
          side: "pulsar",
          operation: "dead-letter",
          kind: "other",
          topic: this.topic,
          retryable: false,
          reason: one.reason
        })
    }
  })
}
