// The packages as npm would publish them, packed once from a copy of the checkout: packing changes package.json, which parallel tests read.
import { execFile } from "node:child_process"
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync } from "node:fs"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import type { Published } from "./registry.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const execute = promisify(execFile)
const packed = [
  "bin",
  "create-millrace",
  "docs",
  "examples",
  "migrations",
  "scripts",
  "src",
  "templates",
  "CHANGELOG.md",
  "LICENSE",
  "README.md",
  "package.json",
  "tsconfig.json",
  "tsconfig.build.json"
]
/** What packing and running leave in a checkout. */
const leftovers = new Set(["node_modules", ".millrace"])
const made = new Set(["create-millrace/dist", "create-millrace/templates"].map((path) => join(root, path)))

const isSource = (path: string) => !made.has(path) && !leftovers.has(basename(path))

/** Packs `millrace` and `create-millrace` in a folder. */
export const packInto = async (folder: string): Promise<ReadonlyArray<Published>> => {
  const copy = join(folder, "checkout")
  mkdirSync(copy)
  for (const path of packed) cpSync(join(root, path), join(copy, path), { recursive: true, filter: isSource })
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"))
  // both build with the compiler, one after the other
  for (const from of [copy, join(copy, "create-millrace")])
    await execute("npm", ["pack", "--silent", "--pack-destination", folder], { cwd: from, timeout: 120_000 })
  return [copy, join(copy, "create-millrace")].map((from) => {
    const manifest = JSON.parse(readFileSync(join(from, "package.json"), "utf8")) as Published["manifest"]
    const tarball = join(folder, `${manifest.name}-${manifest.version}.tgz`)
    if (!existsSync(tarball)) throw new Error(`npm pack made no ${tarball}`)
    return { manifest, tarball }
  })
}
