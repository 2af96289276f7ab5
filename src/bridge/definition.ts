// A bridge's definition as users write it, and the bridge that it makes once everything in it is checked. Pure.
import { definitionProblem } from "./rule-fields.ts"
import { checkRule, checkTogether } from "./rule-checks.ts"
import { type CheckedRule, InvalidBridge, type Rule } from "./rule.ts"

/** A bridge's definition. */
export interface BridgeOptions {
  /** Part of every name that the bridge uses on either side. Default `millrace-bridge`. */
  readonly name?: string
  /** The name by which all bridges that reach this Pulsar call it; Kafka has a cluster id of its own. Default `pulsar`. */
  readonly pulsar?: string
  /** What is mirrored: at least one rule. */
  readonly rules: ReadonlyArray<Rule>
}
/** A bridge whose rules have passed the checks. */
export interface Bridge {
  /** Distinguishes a bridge from other exports of a configuration file. */
  readonly kind: "bridge"
  /** Part of every name that the bridge uses on either side. */
  readonly name: string
  /** The name by which bridges call this Pulsar. */
  readonly pulsar: string
  /** The rules, checked. */
  readonly rules: ReadonlyArray<CheckedRule>
}
const checkName = (field: "name" | "pulsar", name: string) => {
  if (!/^[A-Za-z0-9._-]{1,60}$/.test(name))
    throw new InvalidBridge(
      `\`${field}\` is '${name}'; use letters, digits, '.', '_' and '-' only, and 60 characters at most`
    )
}
/** Makes bridges. */
export const Bridge = {
  /**
   * Declares a bridge. Throws `InvalidBridge` if a field is unknown, a rule cannot work, two rules conflict, or some form a circle.
   *
   * ```ts
   * export default Bridge.make({ rules: [{ from: "kafka:alerts.v1", to: "pulsar:persistent://{tenant}/alerts/alerts.v1" }] })
   * ```
   */
  make: (options: BridgeOptions): Bridge => {
    const problem = definitionProblem(options)
    if (problem !== undefined) throw new InvalidBridge(`the bridge's definition is not valid: ${problem}`)
    const { name = "millrace-bridge", pulsar = "pulsar", rules } = options
    checkName("name", name)
    checkName("pulsar", pulsar)
    if (rules.length === 0)
      throw new InvalidBridge("`rules` is empty, so nothing would be mirrored; write { rules: [{ from, to }] }")
    const checked = rules.map(checkRule)
    checkTogether(checked)
    return { kind: "bridge", name, pulsar, rules: checked }
  }
}
