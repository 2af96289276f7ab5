// Checks of a bridge's rules: each by itself, then all together. Pure.
import { bridgeHeaderPrefix } from "./headers.ts"
import { type CheckedRule, InvalidBridge, type Rule } from "./rule.ts"
import { assertSync } from "../model/user-code.ts"
import { parseTopicPattern, sideNames, topicNameProblem, type TopicPattern } from "./topic-pattern.ts"

const refuse = (rule: string, problem: string, remedy: string): never => {
  throw new InvalidBridge(`rule ${rule}: ${problem}; ${remedy}`)
}
const nameOf = (rule: Rule) =>
  rule.name ?? `${rule.from}-to-${rule.to}`.replace(/persistent:\/\//g, "").replace(/[^A-Za-z0-9._-]+/g, ".")

const patternOf = (rule: string, field: "from" | "to", text: string): TopicPattern => {
  const found = parseTopicPattern(text)
  return typeof found === "string" ? refuse(rule, `\`${field}\` is '${text}': ${found}`, "correct it") : found
}

const checkTopics = (name: string, { from, to }: Rule, source: TopicPattern, target: TopicPattern) => {
  if (source.side === target.side) {
    const tool = source.side === "kafka" ? "use MirrorMaker 2 within Kafka" : "use geo-replication within Pulsar"
    const problem = `\`from\` is '${from}' and \`to\` is '${to}', which are both on ${sideNames[source.side]}`
    refuse(name, problem, `${tool}, or name a topic of the other side`)
  }
  for (const word of target.words) {
    if (word === "tenant" || source.words.includes(word)) continue
    const problem = `\`to\` is '${to}' with {${word}}, which \`from\` ('${from}') does not have`
    refuse(name, problem, `add {${word}} to \`from\`, or replace it by a fixed name in \`to\``)
  }
  const repeated = source.words.find((word, i) => source.words.indexOf(word) < i)
  if (repeated !== undefined)
    refuse(name, `\`from\` is '${from}' with {${repeated}} twice`, "use a different word for each")
  const missing = source.words.filter((word) => !target.words.includes(word))
  if (missing.some((word) => word !== "tenant")) {
    const words = `{${missing.join("}, {")}}`
    const problem = `\`to\` is '${to}' without ${words} of \`from\`, so several topics would be mirrored into one`
    refuse(name, problem, `add ${words} to \`to\`, or write a rule for each topic`)
  }
}
const checkFilters = (name: string, { where }: Rule) => {
  if (where === undefined || typeof where === "function") return
  for (const { equals, header, matches } of [where].flat()) {
    if (equals !== undefined && matches !== undefined)
      refuse(name, `the filter of header ${header} in \`where\` has both \`equals\` and \`matches\``, "remove one")
    try {
      if (matches !== undefined) RegExp(matches)
    } catch (cause) {
      const problem = `\`matches\` of header ${header} in \`where\` is '${matches}', which is not a regular expression`
      refuse(name, `${problem} (${(cause as Error).message})`, "correct it")
    }
  }
}
const checkCode = (name: string, { key, where }: Rule) => {
  for (const [field, code] of Object.entries({ where, key })) {
    try {
      assertSync(`\`${field}\``, code, "write a synchronous function")
    } catch (error) {
      throw new InvalidBridge(`rule ${name}: ${(error as Error).message}`)
    }
  }
}
const checkHeaders = (name: string, { headers = {} }: Rule) => {
  const { drop = [], rename = {}, set = {} } = headers
  const changed = [...drop, ...Object.keys(rename), ...Object.values(rename), ...Object.keys(set)]
  const own = changed.find((header) => header.startsWith(bridgeHeaderPrefix))
  if (own !== undefined)
    refuse(
      name,
      `\`headers\` names ${own}, which the bridge itself writes to know where a record came from`,
      "remove it from `headers`"
    )
  const both = Object.keys(rename).find((header) => drop.includes(header))
  if (both !== undefined) refuse(name, `\`headers\` both drops and renames ${both}`, "do one of the two")
  const renamed = Object.values(rename)
  const repeated = renamed.find((header, i) => renamed.indexOf(header) < i)
  if (repeated !== undefined)
    refuse(name, `\`headers.rename\` gives two headers the name ${repeated}`, "use different names")
}
const checkTenants = (name: string, { tenants = {} }: Rule) => {
  const names = Object.values(tenants)
  const shared = names.find((tenant, i) => names.indexOf(tenant) < i)
  if (shared !== undefined)
    refuse(
      name,
      `\`tenants\` gives two tenants the name ${shared}, so they could not be told apart on Pulsar`,
      "use different names"
    )
}
const checkErrorTopic = (name: string, { errors }: Rule, source: TopicPattern) => {
  if (errors === undefined) return
  const { matcher, side } = source
  const problem = topicNameProblem(side, errors)
  if (problem !== undefined)
    refuse(name, `\`errors\` is '${errors}': ${problem}`, `name a topic on ${sideNames[side]}, without '${side}:'`)
  if (matcher.test(errors))
    refuse(name, `\`errors\` is '${errors}', a topic that the rule itself mirrors`, "name another topic")
}
/** Checks one rule, parses its patterns and decides its name. Throws `InvalidBridge`. */
export const checkRule = (rule: Rule): CheckedRule => {
  const name = nameOf(rule)
  if (!/^[A-Za-z0-9._-]{1,120}$/.test(name))
    refuse(
      name,
      "its `name` may have letters, digits, '.', '_' and '-' only, and 120 characters at most",
      "set another `name`"
    )
  const source = patternOf(name, "from", rule.from)
  const target = patternOf(name, "to", rule.to)
  checkTopics(name, rule, source, target)
  checkFilters(name, rule)
  checkCode(name, rule)
  checkHeaders(name, rule)
  checkTenants(name, rule)
  checkErrorTopic(name, rule, source)
  return { ...rule, name, source, target }
}

/** A pattern without the names of its words, so that two patterns can be compared. */
const shapeOf = ({ literals, side }: TopicPattern) => `${side}:${literals.join("{}")}`
/** Checks that no two rules have one name or mirror the same topics, and that rules form no circle. Throws `InvalidBridge`. */
export const checkTogether = (rules: ReadonlyArray<CheckedRule>): void => {
  const names = new Set<string>()
  const byRoute = new Map<string, string>()
  for (const rule of rules) {
    if (names.has(rule.name)) refuse(rule.name, "another rule has the same name", "give each rule its own `name`")
    names.add(rule.name)
    const route = `${shapeOf(rule.source)} ${shapeOf(rule.target)}`
    const other = byRoute.get(route)
    if (other !== undefined)
      refuse(
        rule.name,
        `it mirrors the same topics as rule ${other}, so each record would arrive twice`,
        "remove one of the two"
      )
    byRoute.set(route, rule.name)
  }
  for (const rule of rules) checkCircle(rules, rule, [rule])
}
/** Follows rules from target to source. Two rules may mirror each other; a longer way back to the first source is a mistake. */
const checkCircle = (rules: ReadonlyArray<CheckedRule>, first: CheckedRule, path: ReadonlyArray<CheckedRule>): void => {
  for (const next of rules) {
    if (shapeOf(next.source) !== shapeOf(path.at(-1)!.target) || path.includes(next)) continue
    if (shapeOf(next.target) !== shapeOf(first.source)) checkCircle(rules, first, [...path, next])
    else if (path.length > 1) {
      const topics = [...path, next].map(({ from }) => from).join(" → ")
      const remedy = "remove one of the rules, so that topics mirror each other only in pairs"
      refuse(first.name, `rules form a circle: ${topics} → ${first.from}`, remedy)
    }
  }
}
