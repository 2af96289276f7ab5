// What consumers and readers of the native client share: connections, when these count as lost, and the conversion of messages.
import { textOf } from "../../text/utf8.ts"
import { PulsarFailure } from "./errors.ts"
import { decodeMessageId } from "./message-id.ts"
import type * as Pulsar from "./native-types.ts"
import type { Received } from "./transport.ts"

/** A client, and how to close it. */
export interface Connection {
  readonly client: Pulsar.Client
  readonly close: () => Promise<void>
}
/**
 * A connection that is lost for so long is given up and opened again. The client itself waits longer with each attempt to reconnect, up to a
 * minute.
 */
export const giveUpAfterMs = 2_000

/** The transport's form of a message of the client. */
export const receivedOf = (message: Pulsar.Message): Received => {
  const handle = message.getMessageId()
  return {
    id: decodeMessageId(handle.serialize()),
    handle,
    key: message.getPartitionKey(),
    value: textOf(message.getData()),
    eventTime: message.getEventTimestamp(),
    publishTime: message.getPublishTimestamp(),
    // the client returns an array with named properties
    properties: { ...message.getProperties() },
    redeliveries: message.getRedeliveryCount()
  }
}

/** The failure of a connection that was given up. */
export const connectionLost = (): PulsarFailure => new PulsarFailure("lost", true, "the connection was lost")
