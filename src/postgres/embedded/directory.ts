// Creates the state directory.
import { mkdirSync, statSync } from "node:fs"
import { dirname } from "node:path"

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
