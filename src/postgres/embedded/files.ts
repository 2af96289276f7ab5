// Opens the files of a state directory so that no other user can lead a read or a write elsewhere. Links are not followed, and a file counts
// only if it is a plain one, has no second name, and belongs to someone who may put it there.
//
// On Linux names are looked up in the directory that was checked, by its descriptor, so it cannot be exchanged between check and use.
import { randomBytes } from "node:crypto"
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  type Stats,
  statSync,
  writeSync
} from "node:fs"
import { dirname, join, resolve } from "node:path"
import { userServing } from "./accounts.ts"
import { permission } from "./errors.ts"

/** An account that owns files; undefined for this process's own. */
export type Owner = { readonly uid: number; readonly gid: number } | undefined

/** A directory that was opened and checked. */
export interface OpenDirectory {
  /** Its path, for messages. */
  readonly path: string
  /** The path to put before a name in it. */
  readonly at: string
  readonly uid: number
  readonly gid: number
  /** Whether an entry with this owner may be there. */
  readonly trusts: (uid: number) => boolean
}

const { O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants
const own = process.getuid?.() ?? -1
const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code

const refuse = (path: string, why: string) =>
  permission(path, `${path} ${why}, so another user could lead Millrace to a file elsewhere; it was left as it is`)

/** Opens without following a link, and without waiting for the other end of a FIFO. */
const open = (path: string, shown: string, flags: number, mode?: number): number => {
  try {
    return openSync(path, flags | O_NOFOLLOW | O_NONBLOCK, mode)
  } catch (error) {
    if (codeOf(error) === "ELOOP" || codeOf(error) === "EMLINK") throw refuse(shown, "is a symbolic link")
    if (codeOf(error) === "ENXIO") throw refuse(shown, "is no plain file")
    throw error
  }
}

/** An error of the system about an entry of a directory, with the path that people know in the place of the descriptor's. */
const named = (error: unknown, through: string, shown: string): unknown => {
  if (!(error instanceof Error) || !error.message.includes(`${through}/`)) return error
  const { code, message, path, syscall } = error as NodeJS.ErrnoException
  return Object.assign(new Error(message.replaceAll(`${through}/`, `${shown}/`), { cause: error }), {
    code,
    syscall,
    path: path?.replace(`${through}/`, `${shown}/`)
  })
}

/**
 * Opens a directory for as long as `use` runs. An entry of it must belong to root, to this user, to the directory's owner or to the account that
 * runs the server of that owner (see `userServing`).
 */
const withDirectory = <A>(
  path: string,
  shown: string,
  parent: OpenDirectory | undefined,
  use: (opened: OpenDirectory) => A
): A => {
  if (lstatSync(path).isSymbolicLink()) throw refuse(shown, "is a symbolic link")
  const descriptor = open(path, shown, O_RDONLY | O_DIRECTORY)
  const through = `/proc/self/fd/${descriptor}`
  try {
    const { gid, mode, uid } = fstatSync(descriptor)
    if (parent !== undefined && !parent.trusts(uid)) throw refuse(shown, `belongs to user ${uid}`)
    // what nobody else can write into holds only what root put there
    const isRoots = uid === 0 && (mode & 0o022) === 0
    // root gives the files that it creates here to the account that runs the server
    const isServers = (owner: number) => own === 0 && owner === userServing(uid)?.uid
    const trusts = (owner: number) => isRoots || owner === 0 || owner === own || owner === uid || isServers(owner)
    return use({ path: shown, at: existsSync(through) ? through : path, uid, gid, trusts })
  } catch (error) {
    throw named(error, through, shown)
  } finally {
    closeSync(descriptor)
  }
}

/** Opens a state directory, and the directory of these names in it, for as long as `use` runs. */
export const inState = <A>(state: string, names: ReadonlyArray<string>, use: (directory: OpenDirectory) => A): A => {
  const descend = (directory: OpenDirectory, [name, ...rest]: ReadonlyArray<string>): A =>
    name === undefined
      ? use(directory)
      : withDirectory(join(directory.at, name), join(directory.path, name), directory, (inner) => descend(inner, rest))
  return withDirectory(state, state, undefined, (directory) => descend(directory, names))
}

/** Refuses what is no plain file with one name and a trusted owner. */
const check = (directory: OpenDirectory, name: string, status: Stats): void => {
  const path = join(directory.path, name)
  if (!status.isFile()) throw refuse(path, "is no plain file")
  if (status.nlink > 1) throw refuse(path, "has a second name (a hard link)")
  if (!directory.trusts(status.uid)) throw refuse(path, `belongs to user ${status.uid}`)
}
/** Opens a file that exists; undefined if it does not. */
const openExisting = (directory: OpenDirectory, name: string, flags: number): number | undefined => {
  let descriptor: number
  try {
    descriptor = open(join(directory.at, name), join(directory.path, name), flags)
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined
    throw error
  }
  try {
    check(directory, name, fstatSync(descriptor))
    return descriptor
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
}
/** Creates a file that does not exist, for an account, with mode 600. Only what was created here is given away. */
const create = (directory: OpenDirectory, name: string, flags: number, owner: Owner): number => {
  const descriptor = openSync(join(directory.at, name), flags | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  if (owner !== undefined) fchownSync(descriptor, owner.uid, owner.gid)
  return descriptor
}

/** The end of a file, at most `most` bytes of it after the first `from`; undefined if it does not exist. */
export const readEnd = (directory: OpenDirectory, name: string, most: number, from = 0): Buffer | undefined => {
  const descriptor = openExisting(directory, name, O_RDONLY)
  if (descriptor === undefined) return undefined
  try {
    const { size } = fstatSync(descriptor)
    const buffer = Buffer.alloc(Math.min(Math.max(0, size - from), most))
    let filled = 0
    while (filled < buffer.length) {
      const count = readSync(descriptor, buffer, filled, buffer.length - filled, size - buffer.length + filled)
      if (count === 0) break
      filled += count
    }
    return buffer.subarray(0, filled)
  } finally {
    closeSync(descriptor)
  }
}
/** The text of a small file; undefined if it does not exist. */
export const readSmall = (directory: OpenDirectory, name: string): string | undefined =>
  readEnd(directory, name, 65_536)?.toString("utf8")

/** The text of a file with a secret; one that others can read is closed to them first. */
export const readSecret = (directory: OpenDirectory, name: string): string | undefined => {
  const descriptor = openExisting(directory, name, O_RDONLY)
  if (descriptor === undefined) return undefined
  try {
    if ((fstatSync(descriptor).mode & 0o077) !== 0) fchmodSync(descriptor, 0o600)
  } finally {
    closeSync(descriptor)
  }
  return readSmall(directory, name)
}

/** The size of a file in bytes; 0 if it does not exist. */
export const sizeIn = (directory: OpenDirectory, name: string): number => {
  const descriptor = openExisting(directory, name, O_RDONLY)
  if (descriptor === undefined) return 0
  const { size } = fstatSync(descriptor)
  closeSync(descriptor)
  return size
}

/** Opens a file for appending, and creates it first for the account if it does not exist. The caller closes it. */
export const openForAppending = (directory: OpenDirectory, name: string, owner: Owner): number =>
  openExisting(directory, name, O_WRONLY | O_APPEND) ?? create(directory, name, O_WRONLY | O_APPEND, owner)
/** Opens a file that exists for reading and writing. The caller closes it. */
export const openForWriting = (directory: OpenDirectory, name: string): number | undefined =>
  openExisting(directory, name, O_RDWR)

/** Writes a file in one step, with mode 600: whatever had its name before, a link for example, is replaced and not followed. */
export const replaceFile = (directory: OpenDirectory, name: string, content: string | Buffer, owner: Owner): void => {
  const fresh = `${name}.${process.pid}.${randomBytes(4).toString("hex")}`
  const descriptor = create(directory, fresh, O_WRONLY, owner)
  try {
    const bytes = Buffer.from(content)
    for (let written = 0; written < bytes.length;) written += writeSync(descriptor, bytes, written)
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
  renameSync(join(directory.at, fresh), join(directory.at, name))
}

/** Creates a directory for an account unless it exists. One that exists is left as it is: `inState` checks it. */
export const makeDirectory = (directory: OpenDirectory, name: string, owner: Owner, mode = 0o700): void => {
  const path = join(directory.at, name)
  try {
    mkdirSync(path, { mode })
  } catch (error) {
    if (codeOf(error) === "EEXIST") return
    throw error
  }
  if (owner === undefined) return
  const descriptor = open(path, join(directory.path, name), O_RDONLY | O_DIRECTORY)
  try {
    // a directory that took its place since would not be empty, or not ours
    if (fstatSync(descriptor).uid === own && readdirSync(path).length === 0)
      fchownSync(descriptor, owner.uid, owner.gid)
  } finally {
    closeSync(descriptor)
  }
}

/**
 * Refuses a path that another user could lead elsewhere: a link on the way counts as the wish of root and of this user, and otherwise only if
 * it leads to something of the link's own owner. A directory that everybody may write into is refused for root.
 */
export const assertOwnWish = (path: string): void => {
  const parts = resolve(path).split("/").slice(1)
  let current = "/"
  for (const part of parts) {
    current = join(current, part)
    const status = lstatSync(current, { throwIfNoEntry: false })
    if (status === undefined) return
    if (status.isSymbolicLink() && status.uid !== 0 && status.uid !== own) {
      const target = statSync(current, { throwIfNoEntry: false })
      if (target?.uid !== status.uid) throw refuse(current, `is a symbolic link of user ${status.uid}`)
    }
  }
  const status = statSync(path)
  if (own === 0 && (status.mode & 0o1002) === 0o002) throw refuse(path, "may be written by everybody")
  if (own > 0 && status.uid !== own && status.uid !== 0)
    throw permission(path, `${path} belongs to user ${status.uid}, and this process runs as user ${own}`)
  const parent = statSync(dirname(path))
  if (own === 0 && (parent.mode & 0o1002) === 0o002) throw refuse(dirname(path), "may be written by everybody")
}
