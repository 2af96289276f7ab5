// Fills the package before npm packs it: the code of `millrace init` as JavaScript, the templates and the licence, all from the folder above.
import { spawnSync } from "node:child_process"
import { cpSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"

const own = import.meta.dirname
const above = join(own, "..")
const versionIn = (folder) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version

// applications depend on the millrace of this version
if (versionIn(own) !== versionIn(above))
  throw new Error(`create-millrace is ${versionIn(own)} and millrace ${versionIn(above)}; give both the same version`)

for (const made of ["dist", "templates", "LICENSE"]) rmSync(join(own, made), { recursive: true, force: true })
const tsc = [join(above, "node_modules/typescript/bin/tsc"), "-p", join(own, "tsconfig.json")]
const { status } = spawnSync(process.execPath, tsc, { stdio: "inherit" })
if (status !== 0) process.exit(status ?? 1)
cpSync(join(above, "templates"), join(own, "templates"), { recursive: true })
cpSync(join(above, "LICENSE"), join(own, "LICENSE"))
