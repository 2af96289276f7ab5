// The error of the embedded PostgreSQL, and the translation of other errors to it.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/**
 * The embedded PostgreSQL cannot be used. The message ends with what to try.
 * - `InUse`: another live process owns the state directory, or a server that cannot be stopped runs in it.
 * - `DiskFull`: there is no space for the cluster or its write-ahead log.
 * - `PortInUse`: another program listens on the requested port.
 * - `Permission`: files belong to another account, the account that the server runs as cannot reach them, or the directory holds something else.
 * - `Unsupported`: there is no PostgreSQL for this platform, or the cluster is of another major version.
 * - `Failed`: anything else, with the end of the server's log.
 */
export class EmbeddedError extends Schema.TaggedError<EmbeddedError>()("EmbeddedError", {
  reason: Schema.Literals(["InUse", "DiskFull", "PortInUse", "Permission", "Unsupported", "Failed"]),
  /** The state directory, or the platform or path that is at fault. */
  path: Schema.String,
  /** The same call may succeed later without a person's help. */
  retryable: Schema.Boolean,
  message: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

const external = "set MILLRACE_DATABASE_URL to use another PostgreSQL"

const make = (reason: EmbeddedError["reason"], path: string, message: string, cause?: unknown) =>
  new EmbeddedError({
    reason,
    path,
    retryable: reason === "InUse",
    message,
    ...(cause === undefined ? {} : { cause })
  })

/** Another process holds the state directory. */
export const inUse = (state: string, pid: number, what = "process") =>
  make(
    "InUse",
    state,
    `state directory ${state} is in use by ${what} ${pid}. try: stop it, or choose another directory with --data DIR`
  )
/** A command that found no server running, such as `rebuild`, started the server of a directory, and still uses it. */
export const inUseByCommand = (state: string, pid: number) =>
  make(
    "InUse",
    state,
    `state directory ${state} is in use by a command of millrace, process ${pid}, which started its server. try: wait until the command ends, or stop it, and start again; what it had begun can be continued beside a running system`
  )
/** Another program listens on the requested port. */
export const portInUse = (state: string, port: number) =>
  make(
    "PortInUse",
    state,
    `port ${port} on 127.0.0.1 is in use. try: choose another port, or none to get a free one (lsof -i :${port} shows which program uses it)`
  )
/** Files cannot be read, written or reached. */
export const permission = (path: string, what: string, cause?: unknown) =>
  make("Permission", path, `${what}. try: choose another directory with --data DIR, or fix the permissions`, cause)
/** A directory that holds something else, and is left as it is. */
export const notOurs = (path: string, what: string) =>
  make("Permission", path, `${path} ${what}. try: choose another directory with --data DIR, a new or an empty one`)
/** There is no server for this platform, or for the version of this data. */
export const unsupported = (path: string, what: string) => make("Unsupported", path, `${what}. try: ${external}`)
/** The disk is full. */
export const diskFull = (state: string, cause?: unknown) =>
  make(
    "DiskFull",
    state,
    `there is no space left on the disk of ${state}. try: free some space (a new database takes 60 MB)`,
    cause
  )
/** Any other failure. */
export const failed = (state: string, what: string, cause?: unknown) => make("Failed", state, what, cause)

/** Translates what a PostgreSQL program printed, or the end of its log, to an error. `what` says what failed. */
export const fromOutput = (state: string, what: string, output: string, port: number): EmbeddedError => {
  if (/No space left on device|could not write .*: wrote only/.test(output)) return diskFull(state, output)
  if (/could not bind|Address already in use/.test(output)) return portInUse(state, port)
  if (/initialized by PostgreSQL version|files are incompatible/.test(output)) {
    return unsupported(state, `the database in ${state} was created by another version of PostgreSQL`)
  }
  const tail = output.trim().split("\n").slice(-6).join("\n")
  return failed(state, `${what}: ${tail || "it printed nothing"}\ntry: look at the log in ${state}/log, or ${external}`)
}

/** Translates any other error. */
export const fromCause = (state: string, cause: unknown): EmbeddedError => {
  if (cause instanceof EmbeddedError) return cause
  const error = cause as NodeJS.ErrnoException
  switch (error.code) {
    case "ENOSPC":
    case "EDQUOT":
      return diskFull(state, cause)
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return permission(state, `${state} cannot be used: ${error.message}`, cause)
    case "EEXIST":
    case "ENOTDIR":
      return permission(state, `${state} is not a directory: ${error.message}`, cause)
    case "ENOENT":
    case "ELOOP":
    case "EINVAL":
    case "ENAMETOOLONG":
    case "ENOSYS":
    case "ENOTSUP":
    case "EOPNOTSUPP":
      // a program that cannot be started has a path elsewhere
      if (error.path?.startsWith(state) === true || state.startsWith(`${error.path}/`))
        return permission(state, `${state} cannot be used: ${error.message}`, cause)
  }
  return failed(state, `the embedded PostgreSQL failed: ${error.message ?? String(cause)}. try: ${external}`, cause)
}

/** Runs `run` and translates what it throws to an `EmbeddedError`. The signal aborts when the fiber is interrupted. */
export const attemptIn = <A>(state: string, run: (signal: AbortSignal) => A | Promise<A>) =>
  Effect.tryPromise({ try: async (signal) => run(signal), catch: (cause) => fromCause(state, cause) })
