// Builds dist/ for the published package: src/ as JavaScript with type declarations, and the files of src/ that are not TypeScript.
import { spawnSync } from "node:child_process"
import { cpSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url))

rmSync(path("dist"), { recursive: true, force: true })
const tsc = [path("node_modules/typescript/bin/tsc"), "-p", path("tsconfig.build.json")]
const { status } = spawnSync(process.execPath, tsc, { stdio: "inherit" })
if (status === 0) cpSync(path("src"), path("dist"), { recursive: true, filter: (file) => !file.endsWith(".ts") })
process.exit(status ?? 1)
