// Refuses events and commands at once while what would store them is behind, so that they do not pile up. Reads are still answered.
import type { FastifyInstance } from "fastify"
import { Problem } from "./problem.ts"

/** Why a server takes no events or no commands now. */
export interface Pressure {
  readonly code: "overloaded" | "disk_full" | "log_unavailable"
  readonly message: string
  readonly try: string
}
/** What is behind now. Cheap: it is asked for each request. */
export interface PressureParts {
  readonly events: () => Pressure | undefined
  readonly commands: () => Pressure | undefined
}

/** The value of Retry-After where something is behind for seconds already. */
const retryAfterSeconds = 5

/** The problem of a request that is refused because of pressure. */
export const pressureProblem = ({ code, message, try: advice }: Pressure): Problem =>
  new Problem(503, code, message, advice, retryAfterSeconds)

/** Refuses events and commands with 503 under pressure, before their bodies are read. To be called before routes are added. */
export const shedLoad = (app: FastifyInstance, { commands, events }: PressureParts): void => {
  app.addHook("onRequest", async ({ routeOptions: { config, url = "" } }) => {
    if (config.scope !== "ingest") return
    const pressure = url.startsWith("/v1/aggregates/") ? commands() : events()
    if (pressure !== undefined) throw pressureProblem(pressure)
  })
}
