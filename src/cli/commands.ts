// Runs `millrace start`, `migrate`, `ingest` and `status`.
import * as Effect from "effect/Effect"
import * as Http from "../server/server.ts"
import { Log } from "../log/log.ts"
import { migrate as migrateSchema } from "../postgres/client/migrate.ts"
import { acceptFunctions } from "../postgres/store/definitions.ts"
import { loadApplication } from "./config.ts"
import { drained } from "./shutdown.ts"
import { asUnprepared, CommandFailed, exitCodes, explain, usageError } from "./command-failure.ts"
import { feed, feedProgress, type FeedResult, nameOf, sendAgain } from "./feed.ts"
import { print, warn, writeOut } from "./print.ts"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { healthMaxAgeMs, parseMaxAge } from "../system/environment.ts"
import { assertOwn, assertRegistered } from "../system/identity.ts"
import { openLog } from "../system/open-log.ts"
import { openObserved, readStatus } from "../system/observed.ts"
import { openSystem } from "../system/system.ts"
import { openProgress } from "./progress.ts"
import { httpOptions } from "./http-options.ts"
import { portOf } from "./http-port.ts"
import { assertPortFree } from "../server/port.ts"
import { defaultPort, isLocal, openWaiting, parseRoles, runLoops, serveHttp, servicesText } from "./serve.ts"
import { terminalText } from "./terminal-text.ts"
import { maskSecrets } from "../text/secrets.ts"
import { openJoined } from "./open-joined.ts"
import { counted } from "../text/counted.ts"

/** Runs some or all roles of a system until stopped. */
export const start = Effect.fnUntraced(function* (options: {
  readonly data: string
  readonly config: string | undefined
  readonly roles: string
  /** Default: 7070 for a gateway and an api, else a free one. */
  readonly port: number | undefined
  readonly host: string | undefined
  readonly insecure: boolean
  readonly json: boolean
}) {
  const roles = yield* parseRoles(options.roles)
  const flags = { ...options, port: (yield* portOf(options.port)) ?? defaultPort(roles) }
  const application = yield* loadApplication(options.config)
  const services = yield* servicesText(options.data)
  const hasRoutes = roles.includes("gateway") || roles.includes("api")
  const waiting = { address: yield* httpOptions(flags), services, hasRoutes, isLocal: yield* isLocal }
  const line = `${application.name} runs against ${services}`
  // standard output is for JSON
  yield* options.json ? warn(line) : print(`millrace ${line}`)
  yield* assertPortFree(waiting.address)
  // outside of `drained`: an embedded server gets as much time to stop as it needs
  const database = yield* openWaiting(openDatabase(options.data, "own"), waiting)
  return yield* drained(
    Effect.gen(function* () {
      const opening = openSystem(application, database, { relaysHere: roles.includes("relay") })
      const system = yield* openWaiting(opening, waiting)
      const serving = Effect.gen(function* () {
        const server = yield* serveHttp(system, roles, waiting.address, flags)
        const started = { roles, url: server.url, database_url: maskSecrets(database.url) }
        yield* print(
          options.json ? JSON.stringify(started) : `millrace ${application.name}: ${roles.join(", ")} at ${server.url}`
        )
        return yield* Effect.never
      })
      // the code of the server is loaded while groups wait for their members
      return yield* Effect.raceFirst(serving, runLoops(system, roles))
    })
  )
})

/** Updates the database: Millrace's own tables, and the application's topics, tables and views. */
export const migrate = Effect.fnUntraced(function* (options: {
  readonly data: string
  readonly config: string | undefined
  readonly adopt: boolean
  readonly newIdentity: boolean
  /** A projection whose functions changed without changing what they record. */
  readonly accept?: string | undefined
  readonly json: boolean
}) {
  const { accept, adopt, newIdentity } = options
  if (adopt && newIdentity)
    return yield* usageError(
      "--adopt and --new-identity exclude each other",
      "--adopt if the database replaces the original, --new-identity if it is a copy that runs beside the original"
    )
  const application = yield* loadApplication(options.config)
  const accepting = application.projections.map(({ projection }) => projection).filter(({ name }) => name === accept)
  if (accept !== undefined && accepting.length === 0)
    return yield* usageError(
      `the application has no projection ${accept}`,
      `one of ${application.projections.map(({ projection }) => projection.name).join(", ")}`
    )
  const database = yield* openDatabase(options.data, "join")
  if (!adopt) yield* assertOwn(application, database.sql)
  const applied = yield* migrateSchema(database.sql)
  yield* openSystem(application, database, { relaysHere: false, identity: { adopt, newIdentity } })
  const projections = application.projections.map(({ projection }) => `${projection.name} v${projection.version}`)
  const accepted = (yield* Effect.forEach(accepting, (one) => acceptFunctions(database.sql, one))).flat()
  const acceptedText =
    accept === undefined
      ? ""
      : ` Accepted for ${accept}: ${accepted.length === 0 ? "nothing had changed" : accepted.join("; ")}.`
  yield* print(
    options.json
      ? JSON.stringify({ applied, projections, ...(accept !== undefined && { accepted }) })
      : `${applied.length === 0 ? "The schema is up to date." : `Applied ${applied.join(", ")}.`} Prepared ${projections.join(", ")}.${acceptedText}`
  )
  return 0
})

/** Sends NDJSON to the gateway at MILLRACE_URL, or to a gateway in this process, which appends to the log. */
export const ingest = Effect.fnUntraced(function* (options: {
  readonly data: string
  readonly config: string | undefined
  readonly topic: string | undefined
  readonly file: string
  readonly json: boolean
}) {
  const given = process.env["MILLRACE_URL"]
  const url = given === undefined || given === "" ? yield* startGateway(options) : given
  let sent = { accepted: 0, rejected: 0 }
  const sending = Effect.gen(function* () {
    const showProgress = feedProgress(yield* openProgress(nameOf(options.file)))
    const onProgress: typeof showProgress = (fed, size) => {
      sent = fed
      showProgress(fed, size)
    }
    return yield* feed(options.file, { url, topic: options.topic, speed: "max", onProgress })
  })
  const { accepted, examples, rejected } = yield* Effect.scoped(sending).pipe(
    Effect.onInterrupt(() => Effect.suspend(() => warn(cutText(options.file, sent))))
  )
  yield* print(
    options.json
      ? JSON.stringify({ accepted, rejected, examples: examples.map((example) => JSON.parse(example) as unknown) })
      : `${accepted} accepted, ${rejected} rejected`
  )
  if (rejected === 0) return 0
  if (!options.json) for (const example of examples) process.stderr.write(`${terminalText(example)}\n`)
  return exitCodes.rejected
})
/** What is known of a file when its command was interrupted. */
const cutText = (file: string, { accepted, rejected }: Pick<FeedResult, "accepted" | "rejected">) =>
  `interrupted: the log has ${counted(accepted, "event")} of ${nameOf(file)}, perhaps also those of the request that was under way; ${rejected} ${rejected === 1 ? "was" : "were"} rejected\n` +
  `try: ${sendAgain}`
/** Starts a gateway for as long as the command runs, so that events pass the same checks as through a gateway of the system. */
const startGateway = Effect.fnUntraced(function* (options: {
  readonly data: string
  readonly config: string | undefined
}) {
  const application = yield* loadApplication(options.config)
  yield* assertDatabaseExists(options.data)
  const { sql } = yield* openDatabase(options.data, "join")
  yield* assertRegistered(application, sql)
  const { log } = yield* openLog(Effect.succeed(sql))
  const server = yield* Http.serve({ application, port: 0, roles: ["gateway"] }).pipe(Effect.provideService(Log, log))
  return server.url
})

/** How often `status --watch` reads the status, in milliseconds. */
const watchMs = 2_000

/** Prints how far projections and relays have come, and what is wrong. The exit code is 0 only if the system is healthy; with `watch` it goes on until stopped. */
export const status = Effect.fnUntraced(function* (options: {
  readonly data: string
  readonly config: string | undefined
  readonly maxAge: string | undefined
  readonly partitions: boolean
  readonly watch: boolean
  readonly json: boolean
}) {
  const maxAgeMs =
    options.maxAge === undefined ? yield* healthMaxAgeMs : yield* parseMaxAge(options.maxAge, "--max-age")
  const database = yield* openJoined(options, 2)
  const observed = yield* Effect.mapError(openObserved(database), asUnprepared)
  const read = Effect.gen(function* () {
    const found = yield* Effect.mapError(readStatus(observed, { maxAgeMs }), asOutdated)
    const { statusTable } = yield* Effect.promise(() => import("./tables.ts"))
    return {
      text: options.json
        ? JSON.stringify(found)
        : statusTable(found, { embeddedDir: database.embeddedDir, allPartitions: options.partitions }),
      code: found.healthy ? 0 : exitCodes.unhealthy
    }
  })
  if (!options.watch) {
    const { code, text } = yield* read
    yield* print(text)
    return code
  }
  while (true) {
    // while the database is away, the screen says so
    const text = yield* Effect.match(read, { onSuccess: (found) => found.text, onFailure: explain })
    if (!(yield* Effect.promise(() => showStatus(text, options.json)))) return 0
    yield* Effect.sleep(watchMs)
  }
})
/** Shows a status in place of the last one in a terminal, and below it elsewhere. False if the reader has closed the output. */
const showStatus = (text: string, json: boolean): Promise<boolean> => {
  if (json) return writeOut(`${text}\n`, false)
  const title = `${new Date().toISOString()}, every ${watchMs / 1_000} s until Ctrl-C`
  if (!process.stdout.isTTY) return writeOut(`${title}\n${text}\n\n`, false)
  // to the upper left, each line to its end, and what is below: nothing flickers
  const lines = terminalText(`${title}\n${text}`).split("\n")
  return new Promise((resolve) =>
    process.stdout.write(`\u001b[H${lines.map((line) => `${line}\u001b[K\n`).join("")}\u001b[J`, (error) =>
      resolve(error == null)
    )
  )
}
/** The error of a database whose tables are missing, or those of an earlier release; any other as it is. */
const asOutdated = <E extends { readonly message: string }>(error: E): E | CommandFailed =>
  /millrace\.(process|pause|live)" does not exist|claimed_by does not exist|p\.\w+_at does not exist|"warnings" does not exist/.test(
    error.message
  )
    ? new CommandFailed({
        message: "the tables of Millrace in this database are missing, or those of an earlier release",
        try: "millrace migrate, or millrace dev"
      })
    : asUnprepared(error)
