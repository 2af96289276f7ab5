// `npm run fault -- HARNESS`: starts the harness in the folder of that name, `kafka` if none is named.
import { existsSync } from "node:fs"
import { join } from "node:path"

const [, , name = ""] = process.argv
const programOf = (folder: string) => join(import.meta.dirname, folder, "main.ts")
const named = /^[a-z]+$/.test(name) && existsSync(programOf(name))
if (named) process.argv.splice(2, 1)
await import(programOf(named ? name : "kafka"))
