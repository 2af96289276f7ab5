// The routes of operations, `/v1/operations/…`: what the commands of the command line do, for the scope `operate`.
import type { FastifyInstance } from "fastify"
import { aggregates } from "./aggregates.ts"
import { deadLetters } from "./dead-letters.ts"
import { history } from "./history.ts"
import { Jobs } from "./jobs.ts"
import { type OperationParts, readBodies } from "./parts.ts"
import { projections } from "./projections.ts"
import { system } from "./system.ts"
import { timers } from "./timers.ts"

/** Adds the routes. Jobs that run are interrupted when the server closes. */
export const operations = (app: FastifyInstance, given: Omit<OperationParts, "jobs">): void => {
  const parts: OperationParts = { ...given, jobs: new Jobs() }
  app.addHook("onClose", () => parts.jobs.close())
  readBodies(app, parts)
  system(app, parts)
  history(app, parts)
  deadLetters(app, parts)
  projections(app, parts)
  timers(app, parts)
  aggregates(app, parts)
}
