// Names of topics on both sides of a bridge, and patterns of them: `kafka:flights.{airline}`, `pulsar:persistent://{tenant}/alerts/flights`. Pure.

/** The systems by how messages name them. */
export const Sides = { kafka: "Kafka", pulsar: "Pulsar" } as const
export type Side = keyof typeof Sides

/** A topic's name with words for some of its parts. */
export interface Pattern {
  readonly side: Side
  /** What stands around the words, one more than these. */
  readonly parts: ReadonlyArray<string>
  readonly words: ReadonlyArray<string>
  readonly matcher: RegExp
}
/** Where a message is in one partition of a topic on Pulsar. */
export interface Place {
  readonly ledger: number
  readonly entry: number
  /** Within a batch; -1: the message is none's part. */
  readonly batch: number
  readonly batchSize: number
}

/** In the order of the partition. */
export const byPlace = (a: Place, b: Place): number =>
  a.ledger - b.ledger || a.entry - b.entry || Math.max(a.batch, 0) - Math.max(b.batch, 0)
/** A place as text, for metadata and headers. */
export const placeText = ({ batch, batchSize, entry, ledger }: Place): string =>
  `${ledger}:${entry}:${batch}:${batchSize}`
/** The place of `placeText`; undefined where the text is none. */
export const parsePlace = (text: string): Place | undefined => {
  const found = /^(\d+):(\d+):(-?\d+):(\d+)$/.exec(text)
  if (found === null) return undefined
  const [ledger = 0, entry = 0, batch = -1, batchSize = 1] = found.slice(1).map(Number)
  return { ledger, entry, batch, batchSize }
}

const escape = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
const forms = {
  kafka: [/^[A-Za-z0-9._-]{1,249}$/, "a topic of Kafka has letters, digits, '.', '_' and '-', 249 at most"],
  pulsar: [
    /^persistent:\/\/[-=:.\w]+\/[-=:.\w]+\/[^/\s]+$/,
    "a topic of Pulsar is named in full, persistent://TENANT/NAMESPACE/TOPIC; others keep nothing to go on from"
  ]
} as const

/** Why a topic cannot have the name on that side; undefined where it can. */
export const misnamed = (side: Side, name: string): string | undefined => {
  const [form, reason] = forms[side]
  return form.test(name) ? undefined : reason
}

/** Reads a pattern with its side; a text says why it is none. */
export const parsePattern = (text: string): Pattern | string => {
  const found = /^(kafka|pulsar):(.+)$/.exec(text)
  if (found === null) return "it begins with kafka: or pulsar:"
  const side = found[1] as Side
  const pieces = found[2]!.split(/\{([a-z][A-Za-z0-9]*)\}/)
  const parts = pieces.filter((_, i) => i % 2 === 0)
  const words = pieces.filter((_, i) => i % 2 === 1)
  if (parts.some((part) => /[{}]/.test(part))) return "a word in braces begins with a small letter, as {tenant}"
  if (parts.slice(1, -1).some((part) => part === "")) return "nothing tells where one {word} ends and the next begins"
  const reason = misnamed(side, parts.join("x"))
  if (reason !== undefined) return reason
  return { side, parts, words, matcher: new RegExp(`^${parts.map(escape).join("([^/]+?)")}$`) }
}

/** The words of a name that the pattern matches; undefined where it does not. */
export const matchOf = ({ matcher, words }: Pattern, name: string): Readonly<Record<string, string>> | undefined => {
  const found = matcher.exec(name)
  return found === null ? undefined : Object.fromEntries(words.map((word, i) => [word, found[i + 1]!]))
}
/** A name from a pattern; the word that is missing, where one is. */
export const fill = (
  { parts, words }: Pattern,
  values: Readonly<Record<string, string>>
): { readonly name: string } | { readonly missing: string } => {
  const missing = words.find((word) => values[word] === undefined)
  if (missing !== undefined) return { missing }
  return { name: parts.map((part, i) => part + (i < words.length ? values[words[i]!]! : "")).join("") }
}
