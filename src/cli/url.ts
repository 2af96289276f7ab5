// Runs `millrace url`: prints the database's URL, with its password, for people and scripts that ask for it.
import * as Effect from "effect/Effect"
import { locate } from "../postgres/embedded/embedded.ts"
import { readerUrlOf } from "../system/database.ts"
import { CommandFailed, exitCodes } from "./command-failure.ts"
import { print, warn } from "./print.ts"

/** The flags of the command. */
export interface UrlFlags {
  readonly data: string
  readonly reader: boolean
}

/**
 * Prints the URL of the application's role, or with `reader` of the one that can only read. The server is not started: for an embedded
 * database that does not run, the exit code is 3.
 */
export const url = Effect.fnUntraced(function* ({ data, reader }: UrlFlags) {
  const given = process.env["MILLRACE_DATABASE_URL"] ?? ""
  const readerUrl = yield* readerUrlOf
  if (given !== "") {
    if (reader && readerUrl === given)
      return yield* new CommandFailed({
        message: "MILLRACE_READER_URL is not set, and this PostgreSQL is not Millrace's own",
        try: "create role millrace_reader login password '…'; grant pg_read_all_data to millrace_reader; and set MILLRACE_READER_URL"
      })
    yield* print(reader ? (readerUrl ?? given) : given)
    return 0
  }
  const found = yield* locate(data)
  if (found === undefined)
    return yield* new CommandFailed({
      message: `there is no embedded database in ${data}`,
      try: "name its state directory with --data, or create it with millrace dev"
    })
  yield* print(reader ? found.readerUrl : found.url)
  if (found.isRunning) return 0
  yield* warn(
    `the embedded database in ${data} does not run; millrace dev and millrace start run it, perhaps at another port`
  )
  return exitCodes.unhealthy
})
