// Makes copies of the source tree with patches in them: named points at which a process can be killed or stopped, and mutants. The tree itself has no
// switches for tests.
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/** Replaces a text of a file that occurs in it exactly once. */
export interface Patch {
  readonly file: string
  readonly find: string
  readonly replace: string
}
/** A copy of the tree that can be run. Remove it after use. */
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

/**
 * The texts of the files that patches change, by their names. Throws if a text does not occur exactly once: then the source has changed, and the
 * patch must be changed with it.
 */
const patched = (directory: string, patches: ReadonlyArray<Patch>): ReadonlyMap<string, string> => {
  const texts = new Map<string, string>()
  for (const { file, find, replace } of patches) {
    const path = join(directory, file)
    const text = texts.get(file) ?? (existsSync(path) ? readFileSync(path, "utf8") : "")
    const found = text.split(find).length - 1
    if (found !== 1)
      throw new Error(
        `a patch does not fit the source: ${file} has this text ${found} times instead of once; change the patch with the source:\n${find}`
      )
    texts.set(
      file,
      text.replace(find, () => replace)
    )
  }
  return texts
}
/** Applies patches. Throws if one does not fit. */
export const patch = (directory: string, patches: ReadonlyArray<Patch>): void => {
  for (const [file, text] of patched(directory, patches)) writeFileSync(join(directory, file), text)
}
/** Throws if patches do not fit the source. Copies and changes nothing. */
export const assertFits = (patches: ReadonlyArray<Patch>): void => void patched(root, patches)

/** Makes a patched copy in a temporary directory. `points.mjs` is loaded first in it. `more` are further files or folders to copy. */
export const patchedCopy = (patches: ReadonlyArray<Patch>, more: ReadonlyArray<string> = []): Copy => {
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
