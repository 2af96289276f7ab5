// Copies of the source tree with patches: named points at which a process dies or stands still, and mutants. The tree itself has no switch for tests.
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/** A change of one file: the text is there exactly once, and another is put in its place. */
export interface Patch {
  readonly file: string
  readonly find: string
  readonly replace: string
}
/** A copy of the tree that can be run. */
export interface Copy {
  readonly root: string
  readonly remove: () => void
}

const root = fileURLToPath(new URL("../../..", import.meta.url))
const parts = [
  "src",
  "bin",
  "projections",
  "aggregates",
  "migrations",
  "package.json",
  "deno.json",
  "millrace.config.ts"
]

/** Puts the patches in. Fails where a text is not there exactly once: then what the patch is for has moved, and it proves nothing. */
export const patch = (directory: string, patches: ReadonlyArray<Patch>): void => {
  for (const { file, find, replace } of patches) {
    const path = join(directory, file)
    const text = existsSync(path) ? readFileSync(path, "utf8") : ""
    const found = text.split(find).length - 1
    if (found !== 1) throw new Error(`a patch does not fit: ${file} has ${found} times\n${find}`)
    writeFileSync(
      path,
      text.replace(find, () => replace)
    )
  }
}

/** A copy with patches in a temporary directory, and with what lets points be reached (`points.mjs`). `more` are files beside the application. */
export const copy = (patches: ReadonlyArray<Patch>, more: ReadonlyArray<string> = []): Copy => {
  const directory = mkdtempSync(join(tmpdir(), "millrace-copy-"))
  const remove = () => rmSync(directory, { recursive: true, force: true })
  try {
    for (const part of [...parts, ...more]) cpSync(join(root, part), join(directory, part), { recursive: true })
    symlinkSync(join(root, "node_modules"), join(directory, "node_modules"))
    cpSync(fileURLToPath(new URL("points.mjs", import.meta.url)), join(directory, "bin", "points.mjs"))
    const begin = `import { existsSync } from "node:fs"`
    patch(directory, [
      { file: "bin/millrace.mjs", find: begin, replace: `import "./points.mjs"\n${begin}` },
      ...patches
    ])
    return { root: directory, remove }
  } catch (error) {
    remove()
    throw error
  }
}
