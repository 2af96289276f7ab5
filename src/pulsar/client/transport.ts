// What the adapters need of a client of Pulsar: consumers, producers and readers of one partition. Two transports implement it.
import type { MessageId } from "./message-id.ts"

/** A message as it came. */
export interface Received {
  readonly id: MessageId
  /** The id as the transport acknowledges it. */
  readonly handle: unknown
  readonly key: string
  readonly value: string
  /** Epoch milliseconds; 0: the producer said none. */
  readonly eventTime: number
  /** Epoch milliseconds. */
  readonly publishTime: number
  readonly properties: Readonly<Record<string, string>>
  /** As the broker counts. */
  readonly redeliveries: number
}
/** A consumer to open. Topics are named in full, and are no partitioned topics but partitions of such. */
export interface ConsumeOptions {
  readonly topic: string
  readonly subscription: string
  readonly name: string
  readonly type: "exclusive" | "shared" | "keyShared"
  readonly earliest: boolean
  /** How much more than what was asked for the client may fetch ahead: what is fetched no other consumer gets. */
  readonly prefetch: number
  readonly arrived: (message: Received) => void
  /**
   * The connection is gone, and with it what arrived and was not acknowledged: all of that comes again, to this consumer or another.
   * `isOver`: the transport does not make it anew, and this consumer is done with.
   */
  readonly lost: (cause: unknown, isOver: boolean) => void
  /** The transport made it anew by itself, and goes on with what was asked for. */
  readonly recovered: () => void
}
export interface TransportConsumer {
  /** So many more may arrive. */
  readonly ask: (count: number) => void
  /** Rejects where it cannot be sent. That it was sent is no promise: it may be lost with the connection. */
  readonly acknowledge: (messages: ReadonlyArray<Received>) => Promise<void>
  /** They may come again at once, to any consumer, counted by the broker. Answers when it was sent. */
  readonly negativeAcknowledge: (messages: ReadonlyArray<Received>) => Promise<void>
  /** Answers when another consumer can take its place. */
  readonly close: () => Promise<void>
}

/** A message to send. */
export interface Outgoing {
  readonly key: string
  readonly value: string
  /** Epoch milliseconds; of 0 and before Pulsar knows no time, and the message has none. */
  readonly eventTime: number
  readonly properties: Readonly<Record<string, string>>
  /** Ascending. Where the broker deduplicates it drops what is not above the last one that it has of this producer name. */
  readonly sequenceId?: number
}
/** A producer to open. */
export interface ProduceOptions {
  readonly topic: string
  /** Default: the broker makes one up. */
  readonly name?: string
  /** The last sequence id that was sent under this name. */
  readonly initialSequenceId?: number
  readonly batching: boolean
  /** More are refused. */
  readonly maxPending: number
}
/** Where a message went. `duplicate`: the broker had it, and dropped this one. */
export interface Receipt {
  readonly id: MessageId
  readonly duplicate: boolean
}
export interface TransportProducer {
  /** Rejects when the connection was lost before an answer, among others: the message may be there, or not. */
  readonly send: (message: Outgoing) => Promise<Receipt>
  readonly close: () => Promise<void>
}
/** A reader to open: it takes no part in any subscription. */
export interface ReadOptions {
  readonly topic: string
  /** The first message, or one after which it begins. */
  readonly from: "earliest" | "latest" | MessageId
}
export interface TransportReader {
  /** The next message; undefined: none came within so many milliseconds. */
  readonly next: (waitMs: number) => Promise<Received | undefined>
  readonly close: () => Promise<void>
}

/** Connections to one cluster. Everything rejects with a `PulsarFailure`. */
export interface Transport {
  readonly consume: (options: ConsumeOptions) => Promise<TransportConsumer>
  readonly produce: (options: ProduceOptions) => Promise<TransportProducer>
  readonly read: (options: ReadOptions) => Promise<TransportReader>
  /**
   * Whether the broker sees the `sequenceId` of messages. Else the interface counts them: each connection's first has the
   * `initialSequenceId` and one, whatever it says.
   */
  readonly numbers: boolean
  /** Partitions of a topic as the client sees it: 0 for one that is not partitioned, or is not there. Undefined: the transport cannot tell. */
  readonly partitions: ((topic: string) => Promise<number>) | undefined
  readonly close: () => Promise<void>
}
