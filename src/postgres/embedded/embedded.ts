// The embedded PostgreSQL of a state directory, as a resource: owned, joined, kept running. It knows nothing of what is stored.
import { chmodSync, mkdirSync, readFileSync, realpathSync, renameSync, writeFileSync } from "node:fs"
import { resolve } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import postgres from "postgres"
import { accountFor, findBinaries } from "./binaries.ts"
import { initialise, name, own, passwordOf, pathsOf } from "./cluster.ts"
import { attempt, type EmbeddedError, failed, inUse, portInUse } from "./errors.ts"
import { entryOf, type Holder, type Kind, release, tryAcquire } from "./lock.ts"
import { freePort, launch, type Postmaster, stopOrphan, trimLog } from "./postmaster.ts"

export { EmbeddedError } from "./errors.ts"

/** What to start, and where. */
export interface Options {
  /** The state directory; made where it is missing. Everything that is kept lies in it. */
  readonly dataDir: string
  /** The port on 127.0.0.1; 0 or none: the one used before, if it is free, else a free one. */
  readonly port?: number | undefined
}
/** A server that runs as long as the scope it was asked for in. */
export interface Server {
  /** For any client, psql too; it holds the password. */
  readonly url: string
  readonly port: number
  /** The state directory, absolute. */
  readonly dataDir: string
  readonly started: "initialised" | "restarted" | "joined"
  /** Fails when the server ended and could not be started again; else it waits forever. */
  readonly failed: Effect.Effect<never, EmbeddedError>
}
/** `millrace.json`, for other processes and for people. `pid` is null once the server was stopped. */
interface StateFile {
  readonly pid: number | null
  readonly holder: string
  readonly port: number
  readonly url: string
}

/**
 * Starts the server as its owner: it is stopped when the scope closes, and restarted when it dies before. At most one process
 * owns a directory; others are refused with `InUse`, while a short `use` is waited for. A server that a killed owner left is
 * stopped first; nothing committed is lost.
 */
export const start = (options: Options): Effect.Effect<Server, EmbeddedError, Scope.Scope> => obtain("own", options)

/**
 * Joins the server of a directory where one runs, without owning it; else starts one that stops when the scope closes and
 * nobody who joined it meanwhile needs it any more (at most 30 s later). A join ends when the owner stops its server.
 */
export const use = (options: Options): Effect.Effect<Server, EmbeddedError, Scope.Scope> => obtain("use", options)

const patienceMs = 30_000
const contendersMs = 300

const obtain = Effect.fnUntraced(function* (kind: Kind, { dataDir, port }: Options) {
  const state = yield* attempt(resolve(dataDir), () => directory(resolve(dataDir)))
  const began = Date.now()
  for (;;) {
    const holder = yield* acquire(state, kind)
    if (holder === undefined) return yield* serve(state, kind, port ?? 0)
    if (kind === "use") {
      const joined = yield* join(state, holder)
      if (joined !== undefined) return joined
    }
    const waitMs = kind === "own" && holder.kind === "own" ? contendersMs : patienceMs
    if (Date.now() - began > waitMs) return yield* inUse(state, holder.pid)
    yield* attempt(state, (signal) => sleep(10 + Math.random() * 40, undefined, { signal }))
  }
})

const directory = (path: string): string => {
  const made = mkdirSync(path, { recursive: true })
  // Root's server runs as another account, which must get through; nobody else may list the directory.
  if (made !== undefined) chmodSync(path, process.getuid?.() === 0 ? 0o711 : 0o700)
  return realpathSync(path)
}

const acquire = (state: string, kind: Kind) =>
  Effect.gen(function* () {
    const holder = yield* attempt(state, () => tryAcquire(state, kind))
    if (holder === undefined) yield* Effect.addFinalizer(() => Effect.sync(() => release(state, kind)))
    return holder
  }).pipe(Effect.uninterruptible)

const serve = Effect.fnUntraced(function* (state: string, kind: Kind, wanted: number) {
  const context = yield* attempt(state, () => {
    const binaries = findBinaries()
    return { state, binaries, account: accountFor(state, pathsOf(state).cluster, binaries) }
  })
  yield* attempt(state, () => stopOrphan(state))
  const initialised = yield* attempt(state, (signal) => initialise(state, context.binaries, context.account, signal))
  const port = yield* attempt(state, () => choosePort(state, wanted))
  const url = `postgres://${name}:${passwordOf(state, context.account)}@127.0.0.1:${port}/${name}`
  const record = { holder: entryOf(kind), port, url }
  const server: { launched?: Promise<Postmaster> } = {}
  const run = (signal: AbortSignal) => (server.launched = launch({ ...context, port }, signal))
  // Registered before the launch: an interrupted one ends by itself, and the lock is kept until it has.
  yield* Effect.addFinalizer(() => Effect.ignore(attempt(state, () => stop(server.launched, kind, url))))
  yield* attempt(state, run)
  const publish = (pid: number | null) =>
    attempt(state, () => own(writeRecord(state, { ...record, pid }), context.account))
  yield* Effect.addFinalizer(() => Effect.ignore(publish(null)))
  yield* publish(process.pid)
  const lost = yield* Deferred.make<never, EmbeddedError>()
  yield* supervise(state, server, run).pipe(
    Effect.catch((error) => Deferred.fail(lost, error)),
    Effect.forkScoped
  )
  const started = initialised ? ("initialised" as const) : ("restarted" as const)
  return { url, port, dataDir: state, started, failed: Deferred.await(lost) } satisfies Server
})

const choosePort = async (state: string, wanted: number): Promise<number> => {
  const port = await freePort(wanted > 0 ? wanted : (readRecord(state)?.port ?? 0))
  if (port !== undefined) return port
  const other = wanted > 0 ? undefined : await freePort(0)
  if (other === undefined) throw portInUse(state, wanted)
  return other
}

/** Starts the server again when it died, at most five times a minute; cuts its log. */
const supervise = Effect.fnUntraced(function* (
  state: string,
  server: { readonly launched?: Promise<Postmaster> },
  run: (signal: AbortSignal) => Promise<Postmaster>
) {
  let restarts: ReadonlyArray<number> = []
  let failedAgain = false
  for (;;) {
    const died =
      failedAgain ||
      (yield* attempt(state, async (signal) => {
        const minute = sleep(60_000, false, { signal, ref: false })
        return Promise.race([server.launched?.then(({ exited }) => exited).then(() => true), minute])
      }))
    yield* attempt(state, () => trimLog(state))
    if (died !== true) continue
    restarts = [...restarts.filter((time) => Date.now() - time < 60_000), Date.now()]
    if (restarts.length > 5) {
      return yield* failed(state, `PostgreSQL ended six times in a minute. try: look at ${pathsOf(state).log}`)
    }
    yield* Effect.logWarning("the embedded PostgreSQL ended unexpectedly and is started again")
    // a server that is killed while it starts has died once more; a full disk or a taken port would not pass by itself
    failedAgain = yield* attempt(state, run).pipe(
      Effect.as(false),
      Effect.catchIf(
        ({ reason }) => reason === "Failed",
        () => Effect.as(Effect.sleep("200 millis"), true)
      )
    )
  }
})

const stop = async (launched: Promise<Postmaster> | undefined, kind: Kind, url: string): Promise<void> => {
  const server = await launched?.catch(() => undefined)
  if (server === undefined) return
  const session = kind === "use" ? await lastSession(url) : undefined
  await server.stop()
  await session?.end({ timeout: 0 })
}

// Who joins holds this lock shared, in a session of its own. A `use` that started the server takes it exclusively before it
// stops it: so it waits for who has joined, and who comes now waits, loses the connection, and starts the server itself.
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
  // A timeout, or a server that is gone: it is stopped all the same.
  await session.unsafe(alone).catch(() => undefined)
  return session
}

/** Joins the holder's server; undefined while it does not answer. */
const join = Effect.fnUntraced(function* (state: string, holder: Holder) {
  const record = yield* attempt(state, () => readRecord(state))
  if (record === undefined || record.pid === null || record.holder !== holder.name) return undefined
  const ended = yield* Deferred.make<never, EmbeddedError>()
  const gone = failed(state, `the server of ${state} was stopped by its owner. try: the same command again`)
  const session = yield* Effect.acquireRelease(
    attempt(state, async () => {
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
  return { url, port, dataDir: state, started: "joined", failed: Deferred.await(ended) } satisfies Server
})

const readRecord = (state: string): StateFile | undefined => {
  try {
    return JSON.parse(readFileSync(pathsOf(state).record, "utf8")) as StateFile
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EACCES") throw error
    return undefined
  }
}
const writeRecord = (state: string, record: StateFile): string => {
  const { record: file } = pathsOf(state)
  writeFileSync(`${file}.${process.pid}`, `${JSON.stringify(record)}\n`, { mode: 0o600 })
  renameSync(`${file}.${process.pid}`, file)
  return file
}
