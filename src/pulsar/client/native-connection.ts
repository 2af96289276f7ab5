// What the consumers and readers of the native client share: its connections, when they count as lost, and its messages.
import { PulsarFailure } from "./errors.ts"
import { decodeMessageId } from "./message-id.ts"
import type * as Pulsar from "./native-types.ts"
import type { Received } from "./transport.ts"

/** A client, and how it ends. */
export interface Connection {
  readonly client: Pulsar.Client
  readonly close: () => Promise<void>
}
/** A connection that is away for so long is given up: the client waits ever longer before it tries again, up to a minute. */
export const awayMs = 2_000

/** A message as transports have it. */
export const receivedOf = (message: Pulsar.Message): Received => {
  const handle = message.getMessageId()
  return {
    id: decodeMessageId(handle.serialize()),
    handle,
    key: message.getPartitionKey(),
    value: message.getData().toString("utf8"),
    eventTime: message.getEventTimestamp(),
    publishTime: message.getPublishTimestamp(),
    // it comes as an array with names
    properties: { ...message.getProperties() },
    redeliveries: message.getRedeliveryCount()
  }
}

/** The failure of a connection that was given up. */
export const away = (): PulsarFailure => new PulsarFailure("lost", true, "the connection was lost")
