// Dead letters as any store can hold them, whatever bytes their records have. Pure.
import { storable } from "../text/text.ts"
import type { DeadLetter } from "./store.ts"

/** The names and values of headers as any store can hold them: text that PostgreSQL refuses is there as JSON, with escapes. */
export const storableHeaders = (headers: Readonly<Record<string, string>>): Readonly<Record<string, string>> =>
  // as entries, so that a header named __proto__ stays a header
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [storable(name), storable(value)]))

/** The dead letter with each text that PostgreSQL refuses as JSON, with escapes. For one without an envelope, which keeps the originals. */
export const storableDeadLetter = (deadLetter: DeadLetter): DeadLetter => {
  const { error, headers, key, message, traceId, value } = deadLetter
  return {
    ...deadLetter,
    error: storable(error),
    message: storable(message),
    key: key === null ? null : storable(key),
    value: value === null ? null : storable(value),
    headers: storableHeaders(headers),
    traceId: traceId === undefined ? undefined : storable(traceId)
  }
}

const mostMessageCharacters = 8_192
/** How an event failed, in ASCII, with the reason why no more than that is kept. */
export const reducedFailure = <A extends Pick<DeadLetter, "error" | "message" | "thrownAt" | "attempts">>(
  { attempts, error, message, thrownAt }: A,
  reason: string
): Pick<DeadLetter, "error" | "message" | "thrownAt" | "attempts"> => ({
  error: ascii(error),
  thrownAt: thrownAt && ascii(thrownAt),
  message: ascii(`${message.slice(0, mostMessageCharacters)} (key, value and headers are only in the log: ${reason})`),
  attempts
})
/** Keeps of a dead letter only what any store can hold: where its record is, and the error. For one that the store refused for `reason`. */
export const reducedDeadLetter = (deadLetter: DeadLetter, reason: string): DeadLetter => {
  const { position, status } = deadLetter
  const none = { key: null, value: null, headers: {}, eventTime: undefined, traceId: undefined }
  return { ...none, position, status, ...reducedFailure(deadLetter, reason) }
}
const ascii = (text: string): string =>
  text.replaceAll(/[^ -~]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)
