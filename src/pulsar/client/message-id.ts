// Where a message is in a topic, as Pulsar's protocol writes it, and as one number. It knows no client.
import { createHash } from "node:crypto"

/** A place in one partition. */
export interface MessageId {
  readonly ledger: number
  readonly entry: number
  /** The place in a batch; -1: the message is none's part. */
  readonly batch: number
  /** How many messages the batch has; 1 without. */
  readonly batchSize: number
}

/** Reads a serialized id: the protocol's `MessageIdData`. Throws where it is none. */
export const decodeMessageId = (bytes: Uint8Array): MessageId => {
  let at = 0
  const varint = () => {
    let value = 0
    for (let scale = 1, i = 0; i < 10; i++, scale *= 128) {
      const byte = bytes[at++]
      if (byte === undefined) throw new Error("this is no message id of Pulsar")
      // a negative number takes ten bytes, and none of those is of use here
      value += (byte & 127) * scale
      if (byte < 128) return value
    }
    throw new Error("this is no message id of Pulsar")
  }
  const found: Record<number, number> = {}
  while (at < bytes.length) {
    const tag = varint()
    if ((tag & 7) === 0) found[tag >> 3] = varint()
    else if ((tag & 7) === 2) at += varint()
    else throw new Error("this is no message id of Pulsar")
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

/** In the order of the partition. */
export const compareMessageIds = (a: MessageId, b: MessageId) =>
  a.ledger - b.ledger || a.entry - b.entry || a.batch - b.batch

/** For people, and for a header: `ledger:entry`, or `ledger:entry:batch`. */
export const messageIdText = ({ batch, entry, ledger }: MessageId) =>
  batch < 0 ? `${ledger}:${entry}` : `${ledger}:${entry}:${batch}`

/**
 * One whole number for a place, always the same one. It ascends as the partition does up to ledger 4,194,303 with 2,097,151 entries, each
 * of 1,024 messages; beyond, it is a negative number that meets another one's by chance only.
 */
export const positionOf = (id: MessageId): number => {
  const { batch, entry, ledger } = id
  if (ledger < 2 ** 22 && entry < 2 ** 21 && batch < 2 ** 10)
    return ledger * 2 ** 31 + entry * 2 ** 10 + Math.max(batch, 0)
  const hash = createHash("sha256").update(messageIdText(id)).digest()
  return -1 - Number(hash.readBigUInt64BE() >> 12n)
}
/** The place of a number, from the first message of its entry where that is what it says. Undefined: the number does not tell. */
export const messageIdAt = (position: number): MessageId | undefined => {
  if (!(Number.isSafeInteger(position) && position >= 0)) return undefined
  const batch = position % 2 ** 10
  const entry = Math.floor(position / 2 ** 10) % 2 ** 21
  return { ledger: Math.floor(position / 2 ** 31), entry, batch: batch === 0 ? -1 : batch, batchSize: 1 }
}

/** Writes an id as the protocol has it, whatever its batch. */
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
