// The embedded PostgreSQL server of a state directory, as a scoped resource: started, joined, and restarted when it dies.
import { chmodSync, existsSync, realpathSync } from "node:fs"
import { join as joinPath, resolve } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import postgres from "postgres"
import { type Account, accountFor, findBinaries } from "./binaries.ts"
import { ensureRoles, initialise, passwordOf, pathsOf } from "./cluster.ts"
import { assertStateDirectory, createDirectory } from "./directory.ts"
import { attemptIn, type EmbeddedError, failed, inUse, inUseByCommand, portInUse } from "./errors.ts"
import { assertOwnWish, inState, readSecret, replaceFile } from "./files.ts"
import { entryOf, holderOf, type LockHolder, type LockKind, release, tryAcquire } from "./lock.ts"
import { freePort, launch, type Postmaster, stopOrphan, trimLog } from "./postmaster.ts"
import { name, reader, readerPassword } from "./roles.ts"

export { EmbeddedError } from "./errors.ts"

/** Where the server keeps its data, and its port. */
export interface EmbeddedOptions {
  /** The state directory, which holds all data. It is created if it does not exist. */
  readonly dataDir: string
  /** The port on 127.0.0.1. With 0 or undefined it is the last one used, or a free one if that is taken. */
  readonly port?: number | undefined
}
/** A running server. */
export interface EmbeddedServer {
  /** The connection URL for any client, such as psql; it holds the password. Its role owns the database and is no superuser. */
  readonly url: string
  /** The same for a role that can read every table and change nothing. */
  readonly readerUrl: string
  readonly port: number
  /** The absolute path of the state directory. */
  readonly dataDir: string
  /** Whether the database was created, was started again, or already ran in another process. */
  readonly started: "initialised" | "restarted" | "joined"
  /** Never succeeds. Fails when the server ended and could not be restarted. */
  readonly failed: Effect.Effect<never, EmbeddedError>
}
/** The content of `millrace.json`, for other processes and for people. `pid` is null after the server was stopped. */
interface StateFile {
  readonly pid: number | null
  readonly holder: string
  readonly port: number
  readonly url: string
}

/**
 * Starts the server as its owner. It is stopped when the scope closes, and restarted when it dies before. Only one process can own
 * a directory: a second one fails with `InUse`, and waits up to 30 s for a process that merely uses it. A server that a killed owner
 * left running is stopped first; nothing committed is lost.
 */
export const start = (options: EmbeddedOptions): Effect.Effect<EmbeddedServer, EmbeddedError, Scope.Scope> =>
  obtain("own", options)

/**
 * Joins the running server of a directory without owning it, or else starts one, which stops when the scope has closed and no process
 * that joined it still uses it (at most 30 s later). When the owner stops the server, `failed` fails for those that joined.
 */
export const use = (options: EmbeddedOptions): Effect.Effect<EmbeddedServer, EmbeddedError, Scope.Scope> =>
  obtain("use", options)

/** Where the server of a directory was started last, and whether it runs now. Undefined if there is none. Starts nothing. */
export const locate = (dataDir: string) =>
  attemptIn(resolve(dataDir), () => {
    const state = resolve(dataDir)
    if (!existsSync(state)) return undefined
    const record = readRecord(realpathSync(state))
    if (record === undefined) return undefined
    const holder = existsSync(joinPath(state, "lock")) ? holderOf(realpathSync(state)) : undefined
    const isRunning = record.pid !== null && holder !== undefined && holder.name === record.holder
    return { ...urlsOf(new URL(record.url).password, record.port), isRunning }
  })

const patienceMs = 30_000
const contendersMs = 300
/** After this the log says for whom is waited; most commands end before. */
const quietMs = 1_000

const obtain = Effect.fnUntraced(function* (kind: LockKind, { dataDir, port }: EmbeddedOptions) {
  const state = yield* attemptIn(resolve(dataDir), () => directory(resolve(dataDir)))
  const began = Date.now()
  let hasTold = false
  for (;;) {
    const holder = yield* acquire(state, kind)
    if (holder === undefined) return yield* serve(state, kind, port ?? 0)
    if (kind === "use") {
      const joined = yield* join(state, holder)
      if (joined !== undefined) return joined
    }
    const byCommand = kind === "own" && holder.kind === "use"
    const waitMs = kind === "own" && !byCommand ? contendersMs : patienceMs
    const waitedMs = Date.now() - began
    if (waitedMs > waitMs) return yield* byCommand ? inUseByCommand(state, holder.pid) : inUse(state, holder.pid)
    if (byCommand && waitedMs > quietMs && !hasTold) {
      hasTold = true
      const limit = `at most ${patienceMs / 1000} s`
      yield* Effect.logWarning(
        `a command of millrace, process ${holder.pid}, uses ${state}; waiting until it ends (${limit})`
      )
    }
    yield* attemptIn(state, (signal) => sleep(10 + Math.random() * 40, undefined, { signal }))
  }
})

const directory = (path: string): string => {
  // before anything is created at the other end of a link
  assertOwnWish(path)
  const made = createDirectory(path)
  // A server that root starts runs as another account, which must be able to enter the directory; no other account may list it.
  if (made !== undefined) chmodSync(path, process.getuid?.() === 0 ? 0o711 : 0o700)
  assertOwnWish(path)
  const state = realpathSync(path)
  if (made === undefined) assertStateDirectory(state)
  return state
}

const acquire = (state: string, kind: LockKind) =>
  Effect.gen(function* () {
    const holder = yield* attemptIn(state, () => tryAcquire(state, kind))
    if (holder === undefined) yield* Effect.addFinalizer(() => Effect.sync(() => release(state, kind)))
    return holder
  }).pipe(Effect.uninterruptible)

const serve = Effect.fnUntraced(function* (state: string, kind: LockKind, wanted: number) {
  const context = yield* attemptIn(state, () => {
    const binaries = findBinaries()
    return { state, binaries, account: accountFor(state, pathsOf(state).cluster, binaries) }
  })
  yield* attemptIn(state, () => stopOrphan(state))
  const initialised = yield* attemptIn(state, (signal) => initialise(state, context.binaries, context.account, signal))
  const port = yield* attemptIn(state, () => choosePort(state, wanted))
  if (!initialised) yield* attemptIn(state, (signal) => ensureRoles(state, context.binaries, context.account, signal))
  const password = yield* attemptIn(state, () => passwordOf(state, context.account))
  const { readerUrl, url } = urlsOf(password, port)
  const record = { holder: entryOf(kind), port, url }
  const server: { launched?: Promise<Postmaster> } = {}
  const run = (signal: AbortSignal) => (server.launched = launch({ ...context, port }, signal))
  // Registered before the launch: an interrupted launch ends by itself, and the lock is held until it has.
  yield* Effect.addFinalizer(() => Effect.ignore(attemptIn(state, () => stop(server.launched, kind, url))))
  yield* attemptIn(state, run)
  const publish = (pid: number | null) =>
    attemptIn(state, () =>
      inState(state, [], (directory) =>
        replaceFile(directory, "millrace.json", `${JSON.stringify({ ...record, pid })}\n`, context.account.owner)
      )
    )
  yield* Effect.addFinalizer(() => Effect.ignore(publish(null)))
  yield* publish(process.pid)
  const lost = yield* Deferred.make<never, EmbeddedError>()
  yield* supervise(state, context.account, server, run).pipe(
    Effect.catch((error) => Deferred.fail(lost, error)),
    Effect.forkScoped
  )
  const started = initialised ? ("initialised" as const) : ("restarted" as const)
  return { url, readerUrl, port, dataDir: state, started, failed: Deferred.await(lost) } satisfies EmbeddedServer
})

const urlsOf = (password: string, port: number) => ({
  url: `postgres://${name}:${password}@127.0.0.1:${port}/${name}`,
  readerUrl: `postgres://${reader}:${readerPassword(password)}@127.0.0.1:${port}/${name}`
})

const choosePort = async (state: string, wanted: number): Promise<number> => {
  const port = await freePort(wanted > 0 ? wanted : (readRecord(state)?.port ?? 0))
  if (port !== undefined) return port
  const other = wanted > 0 ? undefined : await freePort(0)
  if (other === undefined) throw portInUse(state, wanted)
  return other
}

/** Restarts the server when it dies, at most five times a minute, and keeps its log short. */
const supervise = Effect.fnUntraced(function* (
  state: string,
  account: Account,
  server: { readonly launched?: Promise<Postmaster> },
  run: (signal: AbortSignal) => Promise<Postmaster>
) {
  let restarts: ReadonlyArray<number> = []
  let failedAgain = false
  for (;;) {
    const died =
      failedAgain ||
      (yield* attemptIn(state, async (signal) => {
        const minute = sleep(60_000, false, { signal, ref: false })
        return Promise.race([server.launched?.then(({ exited }) => exited).then(() => true), minute])
      }))
    yield* attemptIn(state, () => trimLog(state, account))
    if (died !== true) continue
    restarts = [...restarts.filter((time) => Date.now() - time < 60_000), Date.now()]
    if (restarts.length > 5) {
      return yield* failed(state, `PostgreSQL ended six times within a minute. try: look at ${pathsOf(state).log}`)
    }
    yield* Effect.logWarning("the embedded PostgreSQL ended unexpectedly; restarting it")
    // a server that is killed while it starts counts as one more death; a full disk or a taken port would not go away
    failedAgain = yield* attemptIn(state, run).pipe(
      Effect.as(false),
      Effect.catchIf(
        ({ reason }) => reason === "Failed",
        () => Effect.as(Effect.sleep("200 millis"), true)
      )
    )
  }
})

const stop = async (launched: Promise<Postmaster> | undefined, kind: LockKind, url: string): Promise<void> => {
  const server = await launched?.catch(() => undefined)
  if (server === undefined) return
  const session = kind === "use" ? await lastSession(url) : undefined
  await server.stop()
  await session?.end({ timeout: 0 })
}

// A process that joins holds this lock shared, in a session of its own. A process that started the server with `use` takes it exclusively
// before it stops the server: so it waits for those that joined, and one that joins now waits, loses its connection, and starts the
// server itself.
const joined = "select pg_advisory_lock_shared(1835625580, 1918984037)"
const alone = "set lock_timeout = '20s'; select pg_advisory_lock(1835625580, 1918984037)"

const openSession = (url: string, onclose: () => void = () => undefined) =>
  postgres(url, {
    max: 1,
    fetch_types: false,
    connect_timeout: 5,
    max_lifetime: null,
    onclose,
    connection: { application_name: "millrace session" }
  })
const lastSession = async (url: string) => {
  const session = openSession(url)
  // After a timeout, or if the server is gone, it is stopped nevertheless.
  await session.unsafe(alone).catch(() => undefined)
  return session
}

/** Joins the holder's server; undefined if it does not answer yet. */
const join = Effect.fnUntraced(function* (state: string, holder: LockHolder) {
  const record = yield* attemptIn(state, () => readRecord(state))
  if (record === undefined || record.pid === null || record.holder !== holder.name) return undefined
  const ended = yield* Deferred.make<never, EmbeddedError>()
  const gone = failed(state, `the process that owns the server of ${state} stopped it. try: run the same command again`)
  const session = yield* Effect.acquireRelease(
    attemptIn(state, async () => {
      const sql = openSession(record.url, () => Deferred.doneUnsafe(ended, Exit.fail(gone)))
      return sql.unsafe(joined).then(
        () => sql,
        () => sql.end({ timeout: 0 }).then(() => undefined)
      )
    }),
    (sql) => Effect.promise(async () => sql?.end({ timeout: 0 }))
  )
  if (session === undefined) return undefined
  const { port, url } = record
  const { readerUrl } = urlsOf(new URL(url).password, port)
  return {
    url,
    readerUrl,
    port,
    dataDir: state,
    started: "joined",
    failed: Deferred.await(ended)
  } satisfies EmbeddedServer
})

const readRecord = (state: string): StateFile | undefined => {
  const text = inState(state, [], (directory) => readSecret(directory, "millrace.json"))
  try {
    const record = JSON.parse(text ?? "") as StateFile
    // the file says where a server of this machine listens, and nothing else
    return new URL(record.url).hostname === "127.0.0.1" ? record : undefined
  } catch {
    return undefined
  }
}
