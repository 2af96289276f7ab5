// Position tokens over real HTTP, with the log on embedded PostgreSQL.
import * as Effect from "effect/Effect"
import { databaseOn, server } from "../../support/postgres.ts"
import { tokenTests } from "../../support/tokens.ts"

tokenTests(
  "shop",
  Effect.flatMap(server, (root) => databaseOn(root, 12))
)
