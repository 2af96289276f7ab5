// A child process that starts or joins the embedded PostgreSQL, runs a statement, and waits.
//
// node embedded-child.ts start|use DIR [statement] [wait in ms]: prints one line of JSON after it ran the statement.
import * as Effect from "effect/Effect"
import postgres from "postgres"
import * as Embedded from "../../src/postgres/embedded/embedded.ts"

const [kind, dataDir = "", statement = "select 1", waitMs = "0"] = process.argv.slice(2)

const main = Effect.gen(function* () {
  const server = yield* kind === "use" ? Embedded.use({ dataDir }) : Embedded.start({ dataDir })
  const rows = yield* Effect.promise(async () => {
    const sql = postgres(server.url, { max: 1, fetch_types: false })
    const result = await sql.unsafe(statement)
    await sql.end()
    return [...result]
  })
  process.stdout.write(`${JSON.stringify({ started: server.started, url: server.url, rows })}\n`)
  yield* Effect.sleep(Number(waitMs))
}).pipe(Effect.scoped)

const exit = await Effect.runPromiseExit(main)
if (exit._tag === "Failure") {
  const failure = exit.cause.reasons.map((reason) => ("error" in reason ? reason.error : reason))[0]
  process.stdout.write(`${JSON.stringify({ failed: failure, message: (failure as Error).message })}\n`)
  process.exitCode = 1
}
