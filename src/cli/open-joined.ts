// Opens the database for a command that works beside the processes of a system, or while none runs.
import * as Effect from "effect/Effect"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { assertOwn } from "../system/identity.ts"
import { loadApplication } from "./config.ts"

/** The database, which must exist; with `config`, it must be that of the application. `max`: how many connections, by default one. */
export const openJoined = Effect.fnUntraced(function* (
  { config, data }: { readonly config: string | undefined; readonly data: string },
  max = 1
) {
  yield* assertDatabaseExists(data)
  const database = yield* openDatabase(data, "join", { max })
  if (config !== undefined) yield* assertOwn(yield* loadApplication(config), database.sql)
  return database
})
