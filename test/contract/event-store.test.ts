// Runs the contract of the event store for its adapters.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { EventStore } from "../../src/aggregate/event-store.ts"
import { Log } from "../../src/log/log.ts"
import * as MemoryEventStore from "../../src/memory/event-store.ts"
import * as PostgresEvents from "../../src/postgres/events/events.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import { database } from "../support/postgres.ts"
import { eventStoreContract } from "./event-store.ts"

eventStoreContract("memory", MemoryEventStore.layer)
const onPostgres = (judgesAll: boolean) =>
  Layer.effectContext(
    Effect.gen(function* () {
      const { sql } = yield* database
      const { appended, log } = yield* PostgresLog.make(sql)
      const { store } = PostgresEvents.make(sql, { appended, judgesAll })
      return Context.make(EventStore, store).pipe(Context.add(Log, log))
    })
  )
eventStoreContract("PostgreSQL", onPostgres(false))
eventStoreContract("PostgreSQL, where each command is judged", onPostgres(true))
