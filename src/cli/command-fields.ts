// Reads the fields of an aggregate's command from the arguments of a command line. Pure.
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Fields } from "../model/fields.ts"
import { adviceFor } from "../text/similar-names.ts"

/** The arguments are no fields of the command. */
export class NoCommandFields {
  readonly message: string
  readonly advice: string | undefined
  constructor(message: string, advice: string | undefined) {
    this.message = message
    this.advice = advice
  }
}

/** The JSON text of a field's value: the text is a string where the field's schema accepts that, else the JSON that it is. */
const valueText = (schema: Schema.Constraint, text: string): string => {
  const decode = Schema.decodeUnknownOption(schema as Schema.Codec<unknown>)
  if (Option.isSome(decode(text))) return JSON.stringify(text)
  try {
    JSON.parse(text)
    return text
  } catch {
    return JSON.stringify(text)
  }
}

/** The JSON text of the fields that the arguments give: one JSON object, or `field=value` for each field. */
export const fieldsText = (fields: Fields, given: ReadonlyArray<string>): string | NoCommandFields => {
  const [first = ""] = given
  if (given.length === 1 && first.trimStart().startsWith("{")) return first
  const names = Object.keys(fields)
  const values = new Map<string, string>()
  for (const text of given) {
    const at = text.indexOf("=")
    const name = text.slice(0, at)
    if (at < 1)
      return new NoCommandFields(
        `'${text}' is no field of the command`,
        names.length === 0
          ? "the command has none"
          : `${names.map((each) => `${each}=VALUE`).join(" ")}, or one JSON object`
      )
    if (!Object.hasOwn(fields, name))
      return new NoCommandFields(`the command has no field '${name}'`, adviceFor(name, names))
    if (values.has(name)) return new NoCommandFields(`the field ${name} is given twice`, `${name}=VALUE once`)
    values.set(name, valueText(fields[name]!, text.slice(at + 1)))
  }
  return `{${[...values].map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(",")}}`
}
