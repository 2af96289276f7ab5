// Rules of a bridge between Kafka and Pulsar as users write them: which topics, under which names, with what left out and what renamed. Pure.
import { topicNameProblem, parseTopicPattern, type TopicPattern, sideNames } from "./topic-pattern.ts"
import { misshapen } from "./rule-fields.ts"

/** A record between two systems. Headers are Kafka's headers, or Pulsar's properties, the envelope's names among them. */
export interface BridgeRecord {
  readonly key: string | null
  /** Null deletes the key of a compacted topic; on Pulsar it is the empty payload. */
  readonly value: string | null
  /** Epoch milliseconds. */
  readonly eventTime: number
  readonly headers: Readonly<Record<string, string>>
}
/** A condition on one header. Without `equals` and `matches`: the record has the header. */
export interface HeaderFilter {
  readonly header: string
  readonly equals?: string | ReadonlyArray<string>
  /** A regular expression, found anywhere in the header. */
  readonly matches?: string
  /** True for records that do not fulfil it. */
  readonly not?: boolean
}
/** How headers change on the way. Dropped first, then renamed, then set. */
export interface HeaderMapping {
  readonly drop?: ReadonlyArray<string>
  /** Old name to new name. */
  readonly rename?: Readonly<Record<string, string>>
  readonly set?: Readonly<Record<string, string>>
}
/** One rule: what one system has under `from`, the other gets under `to`. */
export interface Rule {
  /**
   * Names groups, transactional ids, producers and subscriptions: a rule that is given another name begins anew. Default: made of `from`
   * and `to`.
   */
  readonly name?: string
  /**
   * `kafka:TOPIC` or `pulsar:persistent://TENANT/NAMESPACE/TOPIC`. `{word}` in it stands for any part of a name without a slash, and may be
   * used in `to`.
   */
  readonly from: string
  /** The same for the other system. `{tenant}` that `from` does not have is the record's tenant. */
  readonly to: string
  /** Only records that fulfil all of it are mirrored. What a predicate throws makes its record a dead letter. */
  readonly where?: HeaderFilter | ReadonlyArray<HeaderFilter> | ((record: BridgeRecord) => boolean)
  /** Default: the same key. A header that the record lacks makes it a dead letter. */
  readonly key?: { readonly header: string } | ((record: BridgeRecord) => string | null)
  readonly headers?: HeaderMapping
  /** Tenants by their name on Kafka, with their name on Pulsar. Others have one name on both. */
  readonly tenants?: Readonly<Record<string, string>>
  /** Where a rule begins that has no position yet. Default `earliest`. */
  readonly start?: "earliest" | "latest"
  /**
   * What happens where records went from the source before they were mirrored, or the source was made anew: `halt`, which a person must
   * see, or `continue` with what there is. Default `halt`.
   */
  readonly lost?: "halt" | "continue"
  /** Whether messages to Pulsar travel in batches: not for topics with `keyShared` consumers. Default true. */
  readonly batching?: boolean
  /** The topic of dead letters, on the source's system. Default: the source's name and `.bridge-errors`. */
  readonly errors?: string
}
/** A bridge's definition. */
export interface BridgeOptions {
  /** Stands in every name that it uses on either system. Default `millrace-bridge`. */
  readonly name?: string
  /** What this Pulsar is called by all bridges that reach it; Kafka tells its cluster's id itself. Default `pulsar`. */
  readonly pulsar?: string
  readonly rules: ReadonlyArray<Rule>
}
/** A rule that makes sense, with everything decided. */
export interface BridgeRule extends Rule {
  readonly name: string
  readonly source: TopicPattern
  readonly target: TopicPattern
}
/** A bridge that makes sense. */
export interface Bridge {
  readonly kind: "bridge"
  readonly name: string
  readonly pulsar: string
  readonly rules: ReadonlyArray<BridgeRule>
}
/** Rules that make no sense, contradict one another or lead in a circle. The message says which, why and what to do. */
export class InvalidBridge extends Error {
  override readonly name = "InvalidBridge"
}

/** Ends the name of a topic of dead letters; no pattern matches such a topic. */
export const errorsSuffix = ".bridge-errors"
/** Begins the names of headers that are the bridge's own. */
export const ownHeader = "millrace-bridge-"

const refuse = (rule: string, reason: string, advice: string): never => {
  throw new InvalidBridge(`rule ${rule}: ${reason}; ${advice}`)
}
const nameOf = (rule: Rule) =>
  rule.name ?? `${rule.from}-to-${rule.to}`.replace(/persistent:\/\//g, "").replace(/[^A-Za-z0-9._-]+/g, ".")

const patternOf = (rule: string, which: "from" | "to", text: string): TopicPattern => {
  const found = parseTopicPattern(text)
  return typeof found === "string" ? refuse(rule, `\`${which}\` is '${text}': ${found}`, "correct it") : found
}

const checkNames = (name: string, { from, to }: Rule, source: TopicPattern, target: TopicPattern) => {
  if (source.side === target.side) {
    const advice = source.side === "kafka" ? "use MirrorMaker 2 within Kafka" : "use geo-replication within Pulsar"
    refuse(name, `'${from}' and '${to}' are both on ${sideNames[source.side]}`, `${advice}, or name the other system`)
  }
  for (const word of target.words) {
    if (word === "tenant" || source.words.includes(word)) continue
    refuse(name, `\`to\` has {${word}}, which \`from\` has not`, `write {${word}} in \`from\`, or a name in \`to\``)
  }
  if (new Set(source.words).size < source.words.length)
    refuse(name, "`from` has one {word} twice", "give each its own word")
  if (source.words.some((word) => !target.words.includes(word) && word !== "tenant")) {
    const lost = source.words.filter((word) => !target.words.includes(word))
    refuse(
      name,
      `several topics of \`from\` would become one: \`to\` lacks {${lost.join("}, {")}}`,
      "use it in `to`, or write a rule for each topic"
    )
  }
}
const checkFilter = (name: string, { where }: Rule) => {
  if (where === undefined || typeof where === "function") return
  for (const { equals, header, matches } of [where].flat()) {
    if (equals !== undefined && matches !== undefined)
      refuse(name, `the filter of ${header} has \`equals\` and \`matches\``, "use one")
    try {
      if (matches !== undefined) RegExp(matches)
    } catch (cause) {
      refuse(name, `\`matches\` of ${header} is no regular expression (${(cause as Error).message})`, "correct it")
    }
  }
}
const checkMapping = (name: string, { headers = {}, tenants = {} }: Rule) => {
  const { drop = [], rename = {}, set = {} } = headers
  const touched = [...drop, ...Object.keys(rename), ...Object.values(rename), ...Object.keys(set)]
  const own = touched.find((header) => header.startsWith(ownHeader))
  if (own !== undefined)
    refuse(name, `${own} is the bridge's own header, by which it knows what came from where`, "leave it as it is")
  const both = Object.keys(rename).find((header) => drop.includes(header))
  if (both !== undefined) refuse(name, `the header ${both} is dropped and renamed`, "do one of the two")
  const into = Object.values(rename)
  const twice = into.find((header, i) => into.indexOf(header) < i)
  if (twice !== undefined) refuse(name, `two headers become ${twice}`, "give them different names")
  const names = Object.values(tenants)
  const shared = names.find((tenant, i) => names.indexOf(tenant) < i)
  if (shared !== undefined)
    refuse(name, `two tenants become ${shared}: none would be told from the other`, "give them different names")
}
const checkErrors = (name: string, { errors }: Rule, source: TopicPattern) => {
  if (errors === undefined) return
  const reason = topicNameProblem(source.side, errors)
  if (reason !== undefined)
    refuse(
      name,
      `\`errors\` is '${errors}': ${reason}`,
      `name a topic on ${sideNames[source.side]}, without '${source.side}:'`
    )
  if (source.matcher.test(errors))
    refuse(name, `its dead letters would go to '${errors}', which it mirrors itself`, "name another topic in `errors`")
}
const checked = (rule: Rule): BridgeRule => {
  const name = nameOf(rule)
  if (!/^[A-Za-z0-9._-]{1,120}$/.test(name))
    refuse(name, "a name has letters, digits, '.', '_' and '-', 120 at most", "give it such a `name`")
  const source = patternOf(name, "from", rule.from)
  const target = patternOf(name, "to", rule.to)
  checkNames(name, rule, source, target)
  checkFilter(name, rule)
  checkMapping(name, rule)
  checkErrors(name, rule, source)
  return { ...rule, name, source, target }
}

/** A name with its words' names left out, so that patterns can be compared. */
const shape = ({ literals, side }: Pick<TopicPattern, "side" | "literals">) => `${side}:${literals.join("{}")}`
const checkTogether = (rules: ReadonlyArray<BridgeRule>) => {
  const names = new Set<string>()
  const ways = new Map<string, string>()
  for (const rule of rules) {
    if (names.has(rule.name)) refuse(rule.name, "there are two rules of this name", "give one another `name`")
    names.add(rule.name)
    const way = `${shape(rule.source)} ${shape(rule.target)}`
    const other = ways.get(way)
    if (other !== undefined)
      refuse(
        rule.name,
        `it mirrors what ${other} mirrors, to the same place: each record would be there twice`,
        "remove one"
      )
    ways.set(way, rule.name)
  }
  for (const rule of rules) circle(rules, rule, [rule])
}
/** Two rules may be each other's mirror; a longer way back to where it began is a mistake. */
const circle = (rules: ReadonlyArray<BridgeRule>, first: BridgeRule, way: ReadonlyArray<BridgeRule>): void => {
  for (const next of rules) {
    if (shape(next.source) !== shape(way.at(-1)!.target) || way.includes(next)) continue
    if (shape(next.target) !== shape(first.source)) circle(rules, first, [...way, next])
    else if (way.length > 1) {
      const text = [...way, next].map(({ from }) => from).join(" → ")
      refuse(
        first.name,
        `it leads in a circle: ${text} → ${first.from}`,
        "let every pair of topics mirror each other only"
      )
    }
  }
}

export const Bridge = {
  /** Throws `InvalidBridge` where a field is unknown, a rule makes no sense, two of them conflict, or some lead in a circle. */
  make: (options: BridgeOptions): Bridge => {
    const wrong = misshapen(options)
    if (wrong !== undefined) throw new InvalidBridge(`the bridge's definition does not fit: ${wrong}`)
    const { name = "millrace-bridge", pulsar = "pulsar", rules } = options
    if (!/^[A-Za-z0-9._-]{1,60}$/.test(name) || !/^[A-Za-z0-9._-]{1,60}$/.test(pulsar))
      throw new InvalidBridge(
        `'${name}' and '${pulsar}' are the bridge's and Pulsar's name: letters, digits, '.', '_' and '-', 60 at most`
      )
    if (rules.length === 0)
      throw new InvalidBridge("a bridge without rules mirrors nothing: write { rules: [{ from, to }] }")
    const all = rules.map(checked)
    checkTogether(all)
    return { kind: "bridge", name, pulsar, rules: all }
  }
}
