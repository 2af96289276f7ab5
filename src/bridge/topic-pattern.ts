// Names of topics on both sides of a bridge, and patterns of them: `kafka:flights.{airline}`, `pulsar:persistent://{tenant}/alerts/flights`. Pure.

/** The two sides, with their names for messages to people. */
export const sideNames = { kafka: "Kafka", pulsar: "Pulsar" } as const
/** A side of the bridge. */
export type Side = keyof typeof sideNames

/** A topic's name in which words in braces stand for some of its text. */
export interface TopicPattern {
  readonly side: Side
  /** The text around the words: one piece more than there are words. Without words it is the topic's name. */
  readonly literals: ReadonlyArray<string>
  readonly words: ReadonlyArray<string>
  readonly matcher: RegExp
}

const escape = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
const nameRules = {
  kafka: [
    /^[A-Za-z0-9._-]{1,249}$/,
    "a Kafka topic's name has letters, digits, '.', '_' and '-' only, 249 characters at most"
  ],
  pulsar: [
    /^persistent:\/\/[-=:.\w]+\/[-=:.\w]+\/[^/\s]+$/,
    "a Pulsar topic is named in full, persistent://TENANT/NAMESPACE/TOPIC; non-persistent topics keep no messages to resume from"
  ]
} as const

/** Why a topic of that side cannot have the name; undefined if it can. */
export const topicNameProblem = (side: Side, name: string): string | undefined => {
  const [form, reason] = nameRules[side]
  return form.test(name) ? undefined : reason
}

/** Reads a pattern with its side. Returns a text that says what is wrong if it is not a pattern. */
export const parseTopicPattern = (text: string): TopicPattern | string => {
  const found = /^(kafka|pulsar):(.+)$/.exec(text)
  if (found === null) return "it must begin with kafka: or pulsar:"
  const side = found[1] as Side
  const pieces = found[2]!.split(/\{([a-z][A-Za-z0-9]*)\}/)
  const literals = pieces.filter((_, i) => i % 2 === 0)
  const words = pieces.filter((_, i) => i % 2 === 1)
  if (literals.some((literal) => /[{}]/.test(literal)))
    return "a word in braces has letters and digits only and begins with a lower-case letter, as {tenant}"
  if (literals.slice(1, -1).some((literal) => literal === ""))
    return "two words in braces need text between them, which shows where the first one ends"
  const problem = topicNameProblem(side, literals.join("x"))
  if (problem !== undefined) return problem
  return { side, literals, words, matcher: new RegExp(`^${literals.map(escape).join("([^/]+?)")}$`) }
}

/** The text that each word of the pattern stands for in a name; undefined if the name does not match. */
export const matchTopic = (
  { matcher, words }: TopicPattern,
  name: string
): Readonly<Record<string, string>> | undefined => {
  const found = matcher.exec(name)
  return found === null ? undefined : Object.fromEntries(words.map((word, i) => [word, found[i + 1]!]))
}
/** The name that a pattern gives with these words, or the first word that is missing. */
export const fillPattern = (
  { literals, words }: TopicPattern,
  values: Readonly<Record<string, string>>
): { readonly name: string } | { readonly missing: string } => {
  const missing = words.find((word) => values[word] === undefined)
  if (missing !== undefined) return { missing }
  return { name: literals.map((literal, i) => literal + (i < words.length ? values[words[i]!]! : "")).join("") }
}
