// Finds out which messages Kafka rejects when it rejects a whole transaction, by their lengths or by halving. Pure.
import type { BridgeError } from "./errors.ts"
import type { AddressedRecord } from "./kafka-side.ts"
import { formatPosition } from "./pulsar-position.ts"
import type { PulsarMessage } from "./pulsar-side.ts"

/** Messages of a transaction, at most. */
const maxMessages = 1_000
/** A message this many times as long as the average of the others is more likely the one that is too large than all together are. */
const suspiciousRatio = 8

const lengthOf = ({ record: { value } }: PulsarMessage) => value?.length ?? 0

/** What the sessions of one stream to Kafka learn from rejected transactions, kept from one session to the next. */
export class RejectionSearch {
  /** How many messages the next transaction takes at most. It is halved after one was too large. */
  maxMessages = maxMessages
  /** Messages that Kafka rejects by themselves, by formatted position, with the reason. */
  private readonly rejected = new Map<string, string>()
  /** Messages of this many characters or more go in transactions of their own. */
  private aloneFrom = Infinity
  private learned = false

  /** Why Kafka rejects the message; undefined if it is not known to. */
  readonly reasonFor = ({ position }: PulsarMessage): string | undefined => this.rejected.get(formatPosition(position))

  /** Divides messages into transactions: in their order, those that are suspiciously long by themselves. */
  readonly split = (messages: ReadonlyArray<PulsarMessage>): ReadonlyArray<ReadonlyArray<PulsarMessage>> => {
    const groups: Array<Array<PulsarMessage>> = []
    let open: Array<PulsarMessage> | undefined
    for (const message of messages) {
      const isLong = lengthOf(message) >= this.aloneFrom
      if (open === undefined || isLong) groups.push((open = [message]))
      else open.push(message)
      if (isLong) open = undefined
    }
    return groups
  }

  /** Learns from a failed transaction: which message was rejected, or how to divide them so that the next failure shows it. */
  readonly learn = (
    { kind, reason, topic }: BridgeError,
    records: ReadonlyArray<AddressedRecord>,
    messages: ReadonlyArray<PulsarMessage>
  ): void => {
    const concerned = messages.filter((_, i) => topic === undefined || records[i]!.topic === topic)
    if (kind === "tooLarge" && records.length > 1) {
      const lengths = concerned.map(lengthOf)
      const longest = Math.max(...lengths)
      const usual = (lengths.reduce((sum, length) => sum + length, 0) - longest) / lengths.length
      if (longest > suspiciousRatio * usual) this.aloneFrom = Math.min(this.aloneFrom, longest)
      else this.maxMessages = Math.max(1, Math.floor(records.length / 2))
    } else if (kind === "tooLarge" || kind === "refused")
      for (const { position } of concerned) this.rejected.set(formatPosition(position), `${topic}: ${reason}`)
    else return
    this.learned = concerned.length > 0
  }
  /** Forgets the rejected messages once a transaction has committed past them. */
  readonly committed = (): void => this.rejected.clear()
  /** Lets transactions grow again, up to the usual size. */
  readonly grow = (): void => {
    this.maxMessages = Math.min(this.maxMessages * 2, maxMessages)
  }
  /** Whether anything was learned since this was last asked. */
  readonly takeLearned = (): boolean => {
    const { learned } = this
    this.learned = false
    return learned
  }
}
