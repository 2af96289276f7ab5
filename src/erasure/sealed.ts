// Sealed events: the personal fields of an event, encrypted into one text of its JSON by a key of its subject. Sealed states: the state of a snapshot,
// encrypted by the keys of all its subjects. Pure but for random bytes.
//
// AES-256-GCM with a random 12-byte nonce; the aggregate, the stream and the event's id are authenticated with it, so that a text which is
// moved to another event does not open. The technique is known as crypto-shredding: destroying the key erases all copies of the data.
import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto"
import type { PersonalFields } from "../model/personal.ts"
import { UnreadablePersonal } from "./unreadable.ts"

/** The field of a stored event's JSON that has its encrypted fields. */
export const sealedField = "$sealed"
/** Names a key: whose it is, and the how-manieth of theirs, from 1. */
export interface KeyRef {
  readonly subject: string
  readonly number: number
}
/** A key of a subject: 32 bytes. */
export interface SubjectKey extends KeyRef {
  readonly key: Uint8Array
}
/** Finds the bytes of a key; null if they were destroyed, undefined if the key is not known. */
export type FindKey = (ref: KeyRef) => Uint8Array | null | undefined

/** The event that a text belongs to. */
export interface EventAddress {
  readonly aggregate: string
  readonly stream: string | null
  readonly eventId: string | undefined
}
interface Sealed {
  readonly s: string
  readonly k: number
  readonly v: string
  /** The names of the event's personal fields that it has no value for, if there are any: they stay absent after an erasure. */
  readonly a?: ReadonlyArray<string>
}
type Json = Readonly<Record<string, unknown>>

const [nonceBytes, tagBytes] = [12, 16]
const authenticated = ({ aggregate, eventId, stream }: EventAddress) =>
  Buffer.from(JSON.stringify([aggregate, stream, eventId ?? null]))

/** Bytes encrypted by AES-256-GCM: a random nonce, the ciphertext, and the tag, which authenticates `aad` as well. */
export const encrypted = (plain: Uint8Array, key: Uint8Array, aad: Uint8Array): Uint8Array => {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv("aes-256-gcm", key, nonce)
  cipher.setAAD(aad)
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
}
/** What `encrypted` was given. Throws an error for another key, other bytes or another `aad`. */
export const decrypted = (text: Uint8Array, key: Uint8Array, aad: Uint8Array): Uint8Array => {
  const decipher = createDecipheriv("aes-256-gcm", key, text.subarray(0, nonceBytes), { authTagLength: tagBytes })
  decipher.setAAD(aad)
  decipher.setAuthTag(text.subarray(-tagBytes))
  return Buffer.concat([decipher.update(text.subarray(nonceBytes, -tagBytes)), decipher.final()])
}

/** Whether the text of an event's JSON may have sealed fields: fast, and without a parse. */
export const maySeal = (value: string): boolean => value.includes(`"${sealedField}"`)

/** The JSON of an event with these fields sealed. `absent`: its other personal fields, for which it has no value. */
export const seal = (
  json: Json,
  fields: ReadonlyArray<string>,
  { key, number, subject }: SubjectKey,
  at: EventAddress,
  absent: ReadonlyArray<string> = []
): Json => {
  const [personal, open] = [true, false].map((is) =>
    Object.fromEntries(Object.entries(json).filter(([name]) => fields.includes(name) === is))
  ) as [Json, Json]
  const text = encrypted(Buffer.from(JSON.stringify(personal)), key, authenticated(at))
  const sealed: Sealed = { s: subject, k: number, v: Buffer.from(text).toString("base64") }
  return { ...open, [sealedField]: absent.length === 0 ? sealed : { ...sealed, a: absent } }
}

const sealedOf = (json: unknown): Sealed | undefined => {
  const sealed = (json as { readonly [sealedField]?: Partial<Sealed> } | null | undefined)?.[sealedField]
  if (typeof sealed !== "object" || sealed === null) return undefined
  const { a = [], k, s, v } = sealed
  if (!Array.isArray(a)) return undefined
  return typeof s === "string" && typeof k === "number" && typeof v === "string" ? { s, k, v, a } : undefined
}
/** The key that an event's JSON needs; undefined if it has no sealed fields. */
export const keyOf = (json: unknown): KeyRef | undefined => {
  const sealed = sealedOf(json)
  return sealed === undefined ? undefined : { subject: sealed.s, number: sealed.k }
}

/**
 * The field of an event's JSON that says that its personal fields are erased, and are not in it: true, or the names of those that the event
 * had no value for.
 */
const erasedField = "$erased"
/** The JSON of an event whose personal fields are erased. `open` has the others, and `absent` names the personal fields that it had no value for. */
export const erasedJson = (open: Json, absent: ReadonlyArray<string>): Json => ({
  ...open,
  [erasedField]: absent.length === 0 ? true : absent
})
const erasedOf = (json: unknown): unknown => (json as Json | null | undefined)?.[erasedField]
/** Whether an event's JSON says that its personal fields are erased. */
export const isErased = (json: unknown): boolean => erasedOf(json) === true || Array.isArray(erasedOf(json))
/** The same JSON with what replaces erased fields, if they are. Fields that had no value stay absent. */
export const redacted = (json: unknown, fields: PersonalFields): unknown => {
  if (!isErased(json)) return json
  const { [erasedField]: erased, ...open } = json as Json
  const absent = new Set(Array.isArray(erased) ? erased : [])
  return { ...open, ...Object.fromEntries([...fields].filter(([name]) => !absent.has(name))) }
}

/**
 * The JSON of an event with its personal fields, or with `$erased` instead if their key was destroyed (see `redacted`). Returns the same object
 * if nothing is sealed. Throws an error if the key is not known, or if the text is not the one that was sealed for this event.
 */
export const unseal = (json: unknown, at: EventAddress, find: FindKey): unknown => {
  const sealed = sealedOf(json)
  if (sealed === undefined) return json
  const { [sealedField]: _, ...open } = json as Json
  const key = find({ subject: sealed.s, number: sealed.k })
  if (key === undefined)
    throw new UnreadablePersonal(
      `its personal fields need key ${sealed.k} of their subject, which the database does not have`
    )
  if (key === null) return erasedJson(open, sealed.a ?? [])
  let personal: Json
  try {
    const text = decrypted(Buffer.from(sealed.v, "base64"), key, authenticated(at))
    personal = JSON.parse(Buffer.from(text).toString("utf8")) as Json
  } catch {
    throw new UnreadablePersonal(
      "its personal fields cannot be decrypted: they were changed, or belong to another event"
    )
  }
  return { ...open, ...personal }
}

/** The snapshot that a sealed state belongs to. */
export interface StateAddress {
  readonly aggregate: string
  readonly stream: string
  readonly version: number
}
interface SealedState {
  readonly k: ReadonlyArray<readonly [subject: string, number: number]>
  readonly v: string
}
const stateAad = ({ aggregate, stream, version }: StateAddress) =>
  Buffer.from(JSON.stringify(["state", aggregate, stream, version]))
/** One key of several, which nobody has who lacks one of them. */
const combined = (keys: ReadonlyArray<Uint8Array>): Uint8Array => {
  const hash = createHash("sha256").update("millrace state")
  for (const key of keys) hash.update(key)
  return hash.digest()
}

/** A state's text, encrypted so that all of these keys are needed to read it: once one of them is destroyed, nobody can. */
export const sealState = (text: string, keys: ReadonlyArray<SubjectKey>, at: StateAddress): string => {
  const bytes = encrypted(Buffer.from(text), combined(keys.map(({ key }) => key)), stateAad(at))
  const sealed: SealedState = {
    k: keys.map(({ number, subject }) => [subject, number]),
    v: Buffer.from(bytes).toString("base64")
  }
  return JSON.stringify({ [sealedField]: sealed })
}
const sealedState = (text: string): SealedState =>
  (JSON.parse(text) as { readonly [sealedField]: SealedState })[sealedField]
/** Whether a state's text is sealed. */
export const isSealedState = (text: string): boolean => text.startsWith(`{"${sealedField}":`)
/** Texts of the form that `SubjectKeys.forValues` takes, which name the keys that a sealed state needs. */
export const keysOfState = (text: string): ReadonlyArray<string> =>
  sealedState(text).k.map(([s, k]) => JSON.stringify({ [sealedField]: { s, k, v: "" } }))
/** What `sealState` was given; undefined if a key is not known or was destroyed, or if it is the state of another snapshot. */
export const openState = (text: string, at: StateAddress, find: FindKey): string | undefined => {
  const { k, v } = sealedState(text)
  const keys = k.map(([subject, number]) => find({ subject, number }))
  if (!keys.every((key) => key !== undefined && key !== null)) return undefined
  try {
    return Buffer.from(decrypted(Buffer.from(v, "base64"), combined(keys), stateAad(at))).toString("utf8")
  } catch {
    return undefined
  }
}
