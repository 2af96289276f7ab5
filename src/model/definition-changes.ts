// Compares what a build was created with to what the code declares now: what differs, and whether the build can go on with it. Pure.
import type { Declared, Definition, PartOptions } from "./definition.ts"

/**
 * What a difference means for a build that exists.
 * - `rebuild`: rows of the old and the new rule would be in one table, so a new version is needed.
 * - `addColumn`: a nullable column, which is added to the table.
 * - `keptColumn`: a nullable column that is no longer declared. It stays, and new rows have null.
 */
export type ChangeEffect = "rebuild" | "addColumn" | "keptColumn"
/** One option of one part that differs. */
export interface DefinitionChange {
  /** As in `Definition`, such as `window activity`. */
  readonly part: string
  /** Undefined if the whole part was added or removed. */
  readonly option: string | undefined
  /** What differs, as a sentence: `window activity: grace was 5 minutes and is 1 minute`. */
  readonly text: string
  readonly effect: ChangeEffect
}

const units: ReadonlyArray<readonly [number, string]> = [
  [86_400_000, "day"],
  [3_600_000, "hour"],
  [60_000, "minute"],
  [1_000, "second"],
  [1, "millisecond"]
]
const durationText = (ms: number): string => {
  const [size, unit] = units.find(([each]) => ms >= each && ms % each === 0) ?? [1, "millisecond"]
  return `${ms / size} ${unit}${ms === size ? "" : "s"}`
}
const durations: ReadonlySet<string> = new Set(["within", "maxAhead", "grace", "every", "gap"])
const declaredText = (option: string, declared: Declared): string => {
  if (declared === null) return "not declared"
  if (typeof declared === "number" && durations.has(option)) return durationText(declared)
  return typeof declared === "object" ? declared.join(", ") : String(declared)
}

const same = (a: Declared, b: Declared): boolean => JSON.stringify(a) === JSON.stringify(b)
/** Whether an option exists only where it is declared. A stored part without another option was stored by a release that did not know it. */
const isDynamic = (option: string): boolean => option.includes(" ")
const nullableColumn = (option: string, declared: Declared): boolean =>
  option.startsWith("column ") && typeof declared === "string" && declared.endsWith(" or null")

const changesOfPart = (part: string, was: PartOptions, is: PartOptions): ReadonlyArray<DefinitionChange> => {
  const changes: Array<DefinitionChange> = []
  const add = (option: string, text: string, effect: ChangeEffect = "rebuild") =>
    void changes.push({ part, option, text: part === option ? text : `${part}: ${text}`, effect })
  for (const option of new Set([...Object.keys(is), ...Object.keys(was)])) {
    const [before, now] = [was[option], is[option]]
    if (before === undefined) {
      if (isDynamic(option))
        add(
          option,
          `${option} (${declaredText(option, now!)}) was added`,
          nullableColumn(option, now!) ? "addColumn" : "rebuild"
        )
    } else if (now === undefined) {
      if (isDynamic(option))
        add(option, `${option} was removed`, nullableColumn(option, before) ? "keptColumn" : "rebuild")
    } else if (!same(before, now))
      add(option, `${option} was ${declaredText(option, before)} and is ${declaredText(option, now)}`)
  }
  return changes
}

/** What differs between the definition of a build and the one that the code declares, by part. */
export const definitionChanges = (was: Definition, is: Definition): ReadonlyArray<DefinitionChange> => {
  const whole = (part: string, what: string): DefinitionChange => ({
    part,
    option: undefined,
    text: `${part} was ${what}`,
    effect: "rebuild"
  })
  return [...new Set([...Object.keys(is), ...Object.keys(was)])].flatMap((part) => {
    if (was[part] === undefined) return [whole(part, "added")]
    return is[part] === undefined ? [whole(part, "removed")] : changesOfPart(part, was[part], is[part])
  })
}

/** The definition to keep for a build that goes on with the changes: as declared, with the columns that stay in its tables. */
export const mergedDefinition = (was: Definition, is: Definition): Definition => {
  const merged: Record<string, PartOptions> = { ...is }
  for (const { effect, option, part } of definitionChanges(was, is))
    if (effect === "keptColumn") merged[part] = { ...merged[part], [option!]: was[part]![option!]! }
  return merged
}

/** What differs between the texts of a build's functions and those of the code. A new upcaster changes nothing that was there. */
export const functionChanges = (
  was: Readonly<Record<string, string>>,
  is: Readonly<Record<string, string>>
): ReadonlyArray<string> =>
  [...new Set([...Object.keys(is), ...Object.keys(was)])].flatMap((name) => {
    if (was[name] === is[name]) return []
    if (was[name] === undefined) return name.startsWith("upcaster ") ? [] : [`the ${name} was added`]
    return [is[name] === undefined ? `the ${name} was removed` : `the ${name} changed`]
  })
