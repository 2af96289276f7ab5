// Runs a system's roles in this process until it is told to stop: what `dev` and `start` have in common.
import * as Effect from "effect/Effect"
import * as Http from "../server/server.ts"
import { Log } from "../log/log.ts"
import { CommandFailed } from "./command-failure.ts"
import { readStatus } from "../system/observed.ts"
import { runProjections, runRelay, type System } from "../system/system.ts"

/** What a process can do of a system. */
export const roles = ["gateway", "projections", "relay", "api"] as const
export type Role = (typeof roles)[number]

/** Reads `gateway,projections,…`. */
export const parseRoles = (text: string): Effect.Effect<ReadonlyArray<Role>, CommandFailed> => {
  const named = text
    .split(",")
    .map((role) => role.trim())
    .filter((role) => role !== "")
  const unknown = named.filter((role) => !roles.includes(role as Role))
  return unknown.length > 0 || named.length === 0
    ? Effect.fail(
        new CommandFailed({
          message: `there is no role ${unknown.join(", ") || "named"}`,
          try: `--roles ${roles.join(",")}, or some of these`,
          exitCode: 2
        })
      )
    : Effect.succeed([...new Set(named)] as ReadonlyArray<Role>)
}

/** Starts the HTTP server where a role needs one, and hands its URL on. */
export const serveHttp = (system: System, held: ReadonlyArray<Role>, port: number) =>
  Http.serve({
    application: system.application,
    port,
    roles: held.filter((role) => role === "gateway" || role === "api"),
    ready: readStatus(system).pipe(
      Effect.map((status) => ({ ready: status.healthy, ...status })),
      Effect.catch((error) => Effect.succeed({ ready: false, reason: error.message }))
    )
  }).pipe(Effect.provideService(Log, system.log))

/** The loops of the roles; ends with the first that fails, and with the database. */
export const runLoops = (system: System, held: ReadonlyArray<Role>): Effect.Effect<never, unknown> =>
  Effect.raceAllFirst<Effect.Effect<never, unknown>>([
    system.database.failed,
    held.includes("projections") ? Effect.andThen(runProjections(system), Effect.never) : Effect.never,
    held.includes("relay") ? Effect.andThen(runRelay(system), Effect.never) : Effect.never
  ])
