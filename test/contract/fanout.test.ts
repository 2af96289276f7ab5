// Runs the contract of the fan-out for the adapters that need nothing installed.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { fanOutOn } from "../support/fanout.ts"
import { database } from "../support/postgres.ts"
import { fanOutContract } from "./fanout.ts"

fanOutContract("PostgreSQL", Layer.unwrap(Effect.map(database, ({ sql }) => fanOutOn(sql))))
