// Writes what follows from the table of settings: the tables of docs/reference/configuration.md, and the JSON Schema for editors. `npm run settings`.
import { readFileSync, writeFileSync } from "node:fs"
import { settingTable } from "../src/cli/setting-table.ts"
import { settingsSchema } from "../src/cli/settings-schema.ts"

const page = new URL("../docs/reference/configuration.md", import.meta.url)
const schema = new URL("../docs/reference/millrace.schema.json", import.meta.url)

const isLiteral =
  /^(\d+|127\..*|[a-z]+:|[\w.-]*[A-Z]\w*(,\w+)*|tenant|scope|required|public|alerts|\.millrace|scram-.*|pulsar-client|60 seconds)$/
const rowOf = ({ default: usual = "", key, text, variable }) =>
  `| \`${variable}\` | \`${key}\` | ${text} | ${isLiteral.test(usual) ? `\`${usual}\`` : usual} |`
const tableOf = (section) =>
  [
    "| variable | key in the file | meaning | default |",
    "| --- | --- | --- | --- |",
    ...settingTable.filter((entry) => entry.section === section).map(rowOf)
  ].join("\n")

const sections = [...new Set(settingTable.map(({ section }) => section))]
const written = sections.reduce(
  (text, section) =>
    text.replace(
      new RegExp(`(\\n## ${section}\\n[^|]*?)(?:\\n\\|[^\\n]*)+`),
      (_, before) => `${before}\n${tableOf(section)}`
    ),
  readFileSync(page, "utf8")
)
writeFileSync(page, written)
writeFileSync(schema, `${JSON.stringify(settingsSchema(), null, 2)}\n`)
