// The accounts of this machine, and which of them runs the server for whose directory when Millrace runs as root.
import { readFileSync } from "node:fs"

/** An account of `/etc/passwd`. */
export interface User {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

const users = (): ReadonlyArray<User> =>
  readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((line) => line.split(":"))
    .map(([name = "", , uid, gid]) => ({ name, uid: Number(uid), gid: Number(gid) }))

/** The account with this id. Undefined for root, as which PostgreSQL refuses to run, and for an id that has none: it does not run as that either. */
export const userOf = (uid: number): User | undefined => users().find((user) => user.uid === uid && uid > 0)

/**
 * The account that runs the server in a directory of this user, and owns the files that Millrace creates there, if Millrace runs as root: the
 * user's own, else `postgres`, else `nobody`; undefined if there is none of them.
 */
export const userServing = (uid: number): User | undefined =>
  userOf(uid) ?? users().find(({ name }) => name === "postgres") ?? users().find(({ name }) => name === "nobody")
