// The transport interface: consumers, producers and readers of one partition. The native client and the WebSocket interface implement it.
import type { MessageId } from "./message-id.ts"

/** A message as the broker delivered it. */
export interface Received {
  readonly id: MessageId
  /** The id in the transport's own form, by which it acknowledges the message. */
  readonly handle: unknown
  readonly key: string
  readonly value: string
  /** Epoch milliseconds; 0 if the producer gave none. */
  readonly eventTime: number
  /** When the broker stored it, in epoch milliseconds. */
  readonly publishTime: number
  readonly properties: Readonly<Record<string, string>>
  /** How often it was delivered before, as the broker counts. */
  readonly redeliveries: number
}
/** A consumer to open. `topic` is the full name of a topic without partitions, or of one partition. */
export interface ConsumeOptions {
  readonly topic: string
  readonly subscription: string
  readonly name: string
  readonly type: "exclusive" | "shared" | "keyShared"
  readonly earliest: boolean
  /** How many messages the client may fetch beyond those that were asked for. Other consumers of the subscription do not get what is fetched. */
  readonly prefetch: number
  /** Called for each message. */
  readonly arrived: (message: Received) => void
  /**
   * Called if the connection is lost. All messages that arrived and were not acknowledged come again, to this consumer or another one. `isOver` says
   * that the transport does not reconnect: this consumer delivers nothing more. It is not over only for an exclusive consumer.
   */
  readonly lost: (cause: unknown, isOver: boolean) => void
  /** Called when the transport has reconnected by itself. What was asked for before still counts. */
  readonly recovered: () => void
}
export interface TransportConsumer {
  /** Lets so many more messages arrive. */
  readonly ask: (count: number) => void
  /** Rejects if the acknowledgement cannot be sent. Once sent it may still be lost with the connection. */
  readonly acknowledge: (messages: ReadonlyArray<Received>) => Promise<void>
  /** Has the broker deliver the messages again at once, to any consumer, and count it. Resolves when the request was sent. */
  readonly negativeAcknowledge: (messages: ReadonlyArray<Received>) => Promise<void>
  /** Resolves when another consumer can take the place of this one. */
  readonly close: () => Promise<void>
}

/** A message to send. */
export interface Outgoing {
  readonly key: string
  readonly value: string
  /** Epoch milliseconds. With 0 or less the message has no event time, because Pulsar has no such times. */
  readonly eventTime: number
  readonly properties: Readonly<Record<string, string>>
  /** Ascending. A broker that deduplicates drops a message whose id is not above the last one that it has of this producer's name. */
  readonly sequenceId?: number
}
/** A producer to open. */
export interface ProduceOptions {
  readonly topic: string
  /** Only one connection can have it at a time. Default: a name that the broker makes up. */
  readonly name?: string
  /** The last sequence id that was sent under this name. */
  readonly initialSequenceId?: number
  readonly batching: boolean
  /** How many messages may wait for the broker's answer; more are refused. */
  readonly maxPending: number
}
/** The broker's answer to a message. `duplicate` says that the broker dropped the message because it has this sequence id already. */
export interface Receipt {
  readonly id: MessageId
  readonly duplicate: boolean
}
export interface TransportProducer {
  /** Rejects, among other reasons, if the connection was lost before the answer: then the message may be in the topic or not. */
  readonly send: (message: Outgoing) => Promise<Receipt>
  readonly close: () => Promise<void>
}
/** A reader to open. It belongs to no subscription. */
export interface ReadOptions {
  readonly topic: string
  /** Where it starts: at the first message, after the last one, or after the message with this id. */
  readonly from: "earliest" | "latest" | MessageId
}
export interface TransportReader {
  /** The next message; undefined if none came within so many milliseconds. */
  readonly next: (waitMs: number) => Promise<Received | undefined>
  readonly close: () => Promise<void>
}

/** Connections to one cluster. Everything rejects with a `PulsarFailure`. */
export interface Transport {
  readonly consume: (options: ConsumeOptions) => Promise<TransportConsumer>
  readonly produce: (options: ProduceOptions) => Promise<TransportProducer>
  readonly read: (options: ReadOptions) => Promise<TransportReader>
  /**
   * Whether the broker gets the `sequenceId` of messages. If not, the interface numbers them itself: the first message of a connection gets
   * `initialSequenceId` + 1, whatever its `sequenceId` is.
   */
  readonly sendsSequenceIds: boolean
  /** How many partitions a topic has; 0 if it is not partitioned or does not exist. Undefined if the transport cannot find out. */
  readonly partitions: ((topic: string) => Promise<number>) | undefined
  readonly close: () => Promise<void>
}
