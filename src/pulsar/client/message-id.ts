// The id of a message on Pulsar: its position in the topic, as the protocol encodes it and as one number. Pure.
import { createHash } from "node:crypto"

/** The position of a message in one partition. */
export interface MessageId {
  readonly ledger: number
  readonly entry: number
  /** The index in the batch; -1 if the message is in no batch. */
  readonly batch: number
  /** How many messages the batch has; 1 without a batch. */
  readonly batchSize: number
}

/** Decodes the protocol's `MessageIdData`. Throws if the bytes are not one. */
export const decodeMessageId = (bytes: Uint8Array): MessageId => {
  let at = 0
  const varint = () => {
    let value = 0
    for (let scale = 1, i = 0; i < 10; i++, scale *= 128) {
      const byte = bytes[at++]
      if (byte === undefined) throw new Error("these bytes are no message id of Pulsar")
      // a negative number takes ten bytes; its value is not needed
      value += (byte & 127) * scale
      if (byte < 128) return value
    }
    throw new Error("these bytes are no message id of Pulsar")
  }
  const found: Record<number, number> = {}
  while (at < bytes.length) {
    const tag = varint()
    if ((tag & 7) === 0) found[tag >> 3] = varint()
    else if ((tag & 7) === 2) at += varint()
    else throw new Error("these bytes are no message id of Pulsar")
  }
  const small = (value: number | undefined, otherwise: number) =>
    value === undefined || value >= 2 ** 31 ? otherwise : value
  const batch = small(found[4], -1)
  // the entry of a duplicate is -1
  const whole = (value: number | undefined) => (value === undefined || value >= 2 ** 62 ? -1 : value)
  return {
    ledger: whole(found[1]),
    entry: whole(found[2]),
    batch,
    batchSize: batch < 0 ? 1 : Math.max(1, small(found[6], 1))
  }
}

/** Compares ids by their order in the partition. */
export const compareMessageIds = (a: MessageId, b: MessageId) =>
  a.ledger - b.ledger || a.entry - b.entry || a.batch - b.batch

/** An id as text: `ledger:entry`, or `ledger:entry:batch`. */
export const messageIdText = ({ batch, entry, ledger }: MessageId) =>
  batch < 0 ? `${ledger}:${entry}` : `${ledger}:${entry}:${batch}`

/**
 * A whole number for an id, always the same one. It ascends in the order of the partition up to ledger 4,194,303, entry 2,097,151 and 1,024
 * messages a batch. Beyond, it is a negative number that is a hash of the id.
 */
export const positionOf = (id: MessageId): number => {
  const { batch, entry, ledger } = id
  if (ledger < 2 ** 22 && entry < 2 ** 21 && batch < 2 ** 10)
    return ledger * 2 ** 31 + entry * 2 ** 10 + Math.max(batch, 0)
  const hash = createHash("sha256").update(messageIdText(id)).digest()
  return -1 - Number(hash.readBigUInt64BE() >> 12n)
}
/**
 * The id that `positionOf` made a number from. A message that is the first of its batch counts as one in no batch. Undefined if the number is a hash.
 */
export const messageIdAt = (position: number): MessageId | undefined => {
  if (!(Number.isSafeInteger(position) && position >= 0)) return undefined
  const batch = position % 2 ** 10
  const entry = Math.floor(position / 2 ** 10) % 2 ** 21
  return { ledger: Math.floor(position / 2 ** 31), entry, batch: batch === 0 ? -1 : batch, batchSize: 1 }
}

/** Encodes an id as the protocol's `MessageIdData`. */
export const encodeMessageId = ({ batch, batchSize, entry, ledger }: MessageId): Uint8Array => {
  const bytes: Array<number> = []
  const field = (number: number, value: number) => {
    bytes.push(number << 3)
    for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) | 128)
    bytes.push(value)
  }
  field(1, ledger)
  field(2, entry)
  if (batch >= 0) {
    field(4, batch)
    field(6, batchSize)
  }
  return Uint8Array.from(bytes)
}
