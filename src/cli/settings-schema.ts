// The JSON Schema of the file of settings, by which editors complete and check it. Pure.
import { type SettingEntry, type SettingType, settingTable } from "./setting-table.ts"

type Schema = { readonly [member: string]: unknown }

const scopes = ["ingest", "read", "operate"]
const principals: Schema = {
  type: "array",
  items: {
    type: "object",
    properties: {
      cn: { type: "string" },
      san: { type: "string" },
      name: { type: "string" },
      scopes: { type: "array", items: { enum: scopes } },
      tenant: { type: "string" }
    },
    required: ["scopes"],
    additionalProperties: false
  }
}
const typeSchema = (type: SettingType): Schema => {
  if (typeof type === "object") return { enum: type.oneOf }
  if (type === "integer") return { type: "integer", minimum: 0 }
  if (type === "boolean") return { type: "boolean" }
  if (type === "list") return { type: "array", items: { type: "string" } }
  return type === "objects" ? principals : { type: "string" }
}
const secretFile: Schema = {
  type: "object",
  properties: { file: { type: "string" } },
  required: ["file"],
  additionalProperties: false
}
const plain = (markdown: string): string => markdown.replaceAll(/\[([^\]]+)\]\([^)]*\)/g, "$1").replaceAll("`", "")
const valueSchema = ({ default: usual, secret, text, type, variable }: SettingEntry): Schema => ({
  description: `${plain(text)}. ${usual === undefined ? "" : `Default: ${usual}. `}Variable: ${variable}`,
  ...(secret === undefined ? typeSchema(type) : { anyOf: [typeSchema(type), secretFile] })
})
const groupSchema = (entries: ReadonlyArray<readonly [ReadonlyArray<string>, SettingEntry]>): Schema => {
  const names = [...new Set(entries.map(([[name]]) => name!))]
  const properties = names.map((name) => {
    const inside = entries.filter(([[first]]) => first === name)
    const [[path, entry]] = inside as [readonly [ReadonlyArray<string>, SettingEntry]]
    const value =
      path.length === 1 ? valueSchema(entry) : groupSchema(inside.map(([[, ...rest], one]) => [rest, one] as const))
    return [name, value] as const
  })
  return { type: "object", properties: Object.fromEntries(properties), additionalProperties: false }
}

/** The JSON Schema of the file of settings. */
export const settingsSchema = (): Schema => {
  const schema = groupSchema(settingTable.map((entry) => [entry.key.split("."), entry] as const))
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Settings of Millrace",
    ...schema,
    properties: { $schema: { type: "string" }, ...(schema["properties"] as Schema) }
  }
}
