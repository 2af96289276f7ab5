// Runs the contract of the log for the adapters that need nothing installed.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as MemoryLog from "../../src/memory/log.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import { database } from "../support/postgres.ts"
import { logContract } from "./log.ts"

logContract("memory", MemoryLog.layer)
logContract("PostgreSQL", Layer.unwrap(Effect.map(database, ({ sql }) => PostgresLog.layer(sql))))
