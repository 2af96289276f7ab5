// What can go wrong with the embedded PostgreSQL, and how foreign errors become that; it starts and stops nothing.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/**
 * The embedded PostgreSQL cannot be used. The message ends with what to try.
 * - `InUse`: another live process owns the state directory, or a server that this one may not stop runs in it.
 * - `DiskFull`: no space left for the cluster or its write-ahead log.
 * - `PortInUse`: the port that was asked for is taken.
 * - `Permission`: files belong to, or cannot be reached by, the account that the server runs as.
 * - `Unsupported`: no PostgreSQL for this platform, or a cluster of another major version.
 * - `Failed`: anything else, with the end of the server's log.
 */
export class EmbeddedError extends Schema.TaggedError<EmbeddedError>()("EmbeddedError", {
  reason: Schema.Literals(["InUse", "DiskFull", "PortInUse", "Permission", "Unsupported", "Failed"]),
  /** The state directory, or what is missing. */
  path: Schema.String,
  /** The same call may succeed later, with nothing changed by hand. */
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

/** Another process has the directory. */
export const inUse = (state: string, pid: number, what = "process") =>
  make(
    "InUse",
    state,
    `state directory ${state} is in use by ${what} ${pid}. try: stop it, or choose another directory with --data DIR`
  )
/** The port that was asked for is taken. */
export const portInUse = (state: string, port: number) =>
  make(
    "PortInUse",
    state,
    `port ${port} on 127.0.0.1 is in use. try: another port, or none, then a free one is taken (lsof -i :${port} shows who has it)`
  )
/** Files cannot be read, written or reached. */
export const permission = (path: string, what: string, cause?: unknown) =>
  make("Permission", path, `${what}. try: choose another directory with --data DIR, or mend the permissions`, cause)
/** This platform, or this data, has no server here. */
export const unsupported = (path: string, what: string) => make("Unsupported", path, `${what}. try: ${external}`)
/** No space left. */
export const diskFull = (state: string, cause?: unknown) =>
  make("DiskFull", state, `no space left on the disk of ${state}. try: free some (a new database takes 60 MB)`, cause)
/** Anything else. */
export const failed = (state: string, what: string, cause?: unknown) => make("Failed", state, what, cause)

/** What PostgreSQL's own output says, as an error. `output` is the end of its log. */
export const fromOutput = (state: string, what: string, output: string, port: number): EmbeddedError => {
  if (/No space left on device|could not write .*: wrote only/.test(output)) return diskFull(state, output)
  if (/could not bind|Address already in use/.test(output)) return portInUse(state, port)
  if (/initialized by PostgreSQL version|files are incompatible/.test(output)) {
    return unsupported(state, `the database in ${state} was made by another version of PostgreSQL`)
  }
  const tail = output.trim().split("\n").slice(-6).join("\n")
  return failed(state, `${what}: ${tail || "it printed nothing"}\ntry: look at the log in ${state}/log, or ${external}`)
}

/** A foreign error, as ours. */
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
    default:
      return failed(state, `the embedded PostgreSQL failed: ${error.message ?? String(cause)}. try: ${external}`, cause)
  }
}

/** Runs `run`; whatever it throws becomes an `EmbeddedError`. The signal aborts when the fiber is interrupted. */
export const attempt = <A>(state: string, run: (signal: AbortSignal) => A | Promise<A>) =>
  Effect.tryPromise({ try: async (signal) => run(signal), catch: (cause) => fromCause(state, cause) })
