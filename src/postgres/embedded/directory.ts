// Creates the state directory, and refuses a directory that holds something else.
import { lstatSync, mkdirSync, readdirSync, statSync } from "node:fs"
import { dirname, join } from "node:path"
import { notOurs } from "./errors.ts"
import { inState, readSmall } from "./files.ts"

const isDirectory = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true

/**
 * Creates a directory with its parents. Returns the first one that it created; undefined if all existed. Throws the error of the system. Node's
 * own recursive `mkdirSync` never returns where a file system refuses a directory with ENOENT, as `/proc` does.
 */
export const createDirectory = (path: string): string | undefined => {
  const missing: Array<string> = []
  for (let at = path; !isDirectory(at); at = dirname(at)) {
    missing.push(at)
    if (dirname(at) === at) break
  }
  for (const directory of missing.toReversed()) {
    try {
      mkdirSync(directory)
    } catch (error) {
      // another process may have created it meanwhile
      if (!isDirectory(directory)) throw error
    }
  }
  return missing.at(-1)
}

/** What a new directory may hold: what file systems, version control and desktops put there. */
const ofEmptyOnes = new Set(["lost+found", ".gitkeep", ".keep", ".gitignore", ".DS_Store"])
/** The names of Millrace's own entries, also of those that a killed process left half-made. */
const ours = /^(?:lock|log|postgres|postgres\.init-\d+-\d+|(?:password|millrace\.json)(?:\.\d+\.[0-9a-f]{8})?)$/
const lockEntry = /^(?:own|use)-\d+-\w+$/

const kindOf = (path: string): "file" | "directory" | undefined => {
  try {
    const status = lstatSync(path)
    return status.isFile() ? "file" : status.isDirectory() ? "directory" : undefined
  } catch {
    return undefined
  }
}
const recordIn = (path: string): string => {
  try {
    return inState(path, [], (directory) => readSmall(directory, "millrace.json")) ?? ""
  } catch {
    return ""
  }
}
const lockEntriesIn = (path: string): ReadonlyArray<string> | undefined => {
  if (kindOf(join(path, "lock")) !== "directory") return undefined
  try {
    return readdirSync(join(path, "lock"))
  } catch {
    return undefined
  }
}

/** Whether a directory has what only Millrace puts there. A process that was killed leaves some of it, and other files may be beside it. */
const hasState = (path: string, entries: ReadonlyArray<string>): boolean => {
  const is = (kind: "file" | "directory", name: string) => kindOf(join(path, name)) === kind
  const isCluster = is("directory", "postgres")
  if (isCluster && (is("file", "postgres/millrace.conf") || is("file", "postgres/millrace.roles"))) return true
  if (recordIn(path).includes('"holder"')) return true
  if (is("file", "password") && (isCluster || is("directory", "lock"))) return true
  if (entries.some((name) => name.startsWith("postgres.init-") && ours.test(name))) return true
  const held = lockEntriesIn(path)
  if (held === undefined || !held.every((name) => lockEntry.test(name))) return false
  return held.length > 0 || entries.every((name) => ours.test(name) || ofEmptyOnes.has(name))
}

/**
 * Throws `Permission` if a directory is no state directory and cannot become one: it holds other files and nothing of Millrace, or, if it is
 * empty, it is one that all users share, as `/tmp` is. Changes nothing.
 */
export const assertStateDirectory = (path: string): void => {
  const entries = readdirSync(path)
  if (hasState(path, entries)) return
  const other = entries.toSorted().find((name) => !ofEmptyOnes.has(name))
  if (other !== undefined)
    throw notOurs(path, `is no state directory of Millrace, and it is not empty: it holds ${other}`)
  if ((statSync(path).mode & 0o1002) === 0o1002) throw notOurs(path, "is shared by all users")
}
