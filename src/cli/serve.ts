// What `millrace dev` and `millrace start` share: the roles of a system, its HTTP server, and its loops.
import * as Effect from "effect/Effect"
import * as Http from "../server/server.ts"
import { Log } from "../log/log.ts"
import { CommandFailed, exitCodes } from "./command-failure.ts"
import { readStatus } from "../system/observed.ts"
import { runProjections, runRelay, type System } from "../system/system.ts"

/** The roles that a process can have in a system. */
export const roles = ["gateway", "projections", "relay", "api"] as const
export type Role = (typeof roles)[number]

/** Reads roles that are separated by commas. */
export const parseRoles = (text: string): Effect.Effect<ReadonlyArray<Role>, CommandFailed> => {
  const named = text
    .split(",")
    .map((role) => role.trim())
    .filter((role) => role !== "")
  const unknown = named.filter((role) => !roles.includes(role as Role))
  return unknown.length > 0 || named.length === 0
    ? Effect.fail(
        new CommandFailed({
          message: unknown.length > 0 ? `unknown role ${unknown.join(", ")}` : "--roles names no role",
          try: `--roles ${roles.join(",")}, or some of these`,
          exitCode: exitCodes.usage
        })
      )
    : Effect.succeed([...new Set(named)] as ReadonlyArray<Role>)
}

/** The names in `MILLRACE_HTTP_HOSTS`, separated by commas, which a Host header may have beside those of this machine. */
const httpHosts = ({ MILLRACE_HTTP_HOSTS: names = "" }: NodeJS.ProcessEnv): ReadonlyArray<string> =>
  names
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "")

/** Starts the HTTP server with the routes of the roles. It is closed with the scope. */
export const serveHttp = (system: System, held: ReadonlyArray<Role>, port: number) =>
  Http.serve({
    application: system.application,
    port,
    hosts: httpHosts(process.env),
    roles: held.filter((role) => role === "gateway" || role === "api"),
    ready: readStatus(system).pipe(
      Effect.map((status) => ({ ready: status.healthy, ...status })),
      Effect.catch((error) => Effect.succeed({ ready: false, reason: error.message }))
    )
  }).pipe(Effect.provideService(Log, system.log))

/** Runs the loops of the roles. Fails as soon as one of them fails, or the database has ended for good. */
export const runLoops = (system: System, held: ReadonlyArray<Role>): Effect.Effect<never, unknown> =>
  Effect.raceAllFirst<Effect.Effect<never, unknown>>([
    system.database.failed,
    held.includes("projections") ? Effect.andThen(runProjections(system), Effect.never) : Effect.never,
    held.includes("relay") ? Effect.andThen(runRelay(system), Effect.never) : Effect.never
  ])
