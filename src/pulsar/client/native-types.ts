// Types of the part of the package `pulsar-client` that the native transport uses: the package may not be installed. No code.

/** Opaque, but for its bytes. */
export interface MessageId {
  readonly serialize: () => Buffer
}
export interface Message {
  readonly getMessageId: () => MessageId
  readonly getPartitionKey: () => string
  readonly getData: () => Buffer
  readonly getEventTimestamp: () => number
  readonly getPublishTimestamp: () => number
  readonly getProperties: () => Record<string, string>
  readonly getRedeliveryCount: () => number
}
export interface Consumer {
  readonly receive: () => Promise<Message>
  /** As many as the policy says, or what there is when its time is over. */
  readonly batchReceive: () => Promise<ReadonlyArray<Message>>
  readonly acknowledgeId: (id: MessageId) => Promise<null>
  readonly negativeAcknowledgeId: (id: MessageId) => void
  readonly isConnected: () => boolean
  readonly close: () => Promise<null>
}
export interface Producer {
  readonly send: (message: {
    readonly data: Buffer
    readonly partitionKey: string
    readonly eventTimestamp?: number
    readonly properties: Readonly<Record<string, string>>
    readonly sequenceId?: number
  }) => Promise<MessageId>
  readonly getTopic: () => string
  readonly close: () => Promise<null>
}
export interface Reader {
  /** Asks the broker if the client has no more messages, and blocks the process meanwhile. */
  readonly hasNext: () => boolean
  readonly isConnected: () => boolean
  readonly readNext: () => Promise<Message>
  readonly close: () => Promise<null>
}
export interface ClientConfig {
  readonly serviceUrl: string
  readonly operationTimeoutSeconds: number
  readonly connectionTimeoutMs: number
  readonly logLevel: number
  readonly log: () => void
  readonly authentication?: object
  readonly tlsTrustCertsFilePath?: string
  readonly tlsCertificateFilePath?: string
  readonly tlsPrivateKeyFilePath?: string
  readonly tlsValidateHostname: boolean
}
export interface Client {
  readonly subscribe: (options: {
    readonly topic: string
    readonly subscription: string
    readonly subscriptionType: "Exclusive" | "Shared" | "KeyShared"
    readonly subscriptionInitialPosition: "Earliest" | "Latest"
    readonly consumerName: string
    readonly receiverQueueSize: number
    readonly nAckRedeliverTimeoutMs: number
    readonly batchIndexAckEnabled: boolean
    readonly batchReceivePolicy: {
      readonly maxNumMessages: number
      readonly maxNumBytes: number
      readonly timeoutMs: number
    }
    /** The next message comes when its promise is settled. */
    readonly listener?: (message: Message) => Promise<void>
  }) => Promise<Consumer>
  readonly createProducer: (options: {
    readonly topic: string
    readonly producerName?: string
    readonly initialSequenceId?: number
    readonly batchingEnabled: boolean
    readonly batchingMaxPublishDelayMs: number
    readonly batchingMaxMessages: number
    readonly maxPendingMessages: number
    readonly blockIfQueueFull: boolean
    readonly sendTimeoutMs: number
  }) => Promise<Producer>
  readonly createReader: (options: {
    readonly topic: string
    readonly startMessageId: MessageId
    readonly receiverQueueSize: number
  }) => Promise<Reader>
  readonly getPartitionsForTopic: (topic: string) => Promise<ReadonlyArray<string>>
  readonly close: () => Promise<null>
}
export interface Module {
  readonly Client: new (options: ClientConfig) => Client
  readonly AuthenticationToken: new (options: { readonly token: string }) => object
  readonly AuthenticationTls: new (options: {
    readonly certificatePath: string
    readonly privateKeyPath: string
  }) => object
  readonly MessageId: {
    readonly earliest: () => MessageId
    readonly latest: () => MessageId
    readonly deserialize: (bytes: Buffer) => MessageId
  }
  readonly LogLevel: { readonly ERROR: number }
}
