// A worker process: runs projections, policies and timers. The server may be recovering when it starts, so it tries again.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { connect } from "../../../src/postgres/client/client.ts"
import { openSystem, runProjections } from "../../../src/system/system.ts"
import application from "./application.config.ts"

const url = process.env["MILLRACE_DATABASE_URL"]!
const work = Effect.scoped(
  Effect.gen(function* () {
    const sql = yield* connect(url, { max: 8, applicationName: "writer" })
    const database = { url, sql, embedded: false, failed: Effect.never }
    const system = yield* openSystem(application, database, { relaysHere: false })
    process.stdout.write("point: up\n")
    return yield* runProjections(system)
  })
)
await Effect.runPromise(Effect.retry(work, Schedule.spaced("200 millis")))
