// Opens the event store of a system: on PostgreSQL, with encryption of personal data.
import * as Effect from "effect/Effect"
import { executorOf } from "../aggregate/executor.ts"
import { sealing } from "../aggregate/sealing-store.ts"
import type { Application } from "../model/application.ts"
import type { Sql } from "../postgres/client/client.ts"
import * as PostgresEvents from "../postgres/events/events.ts"
import * as PostgresLog from "../postgres/log/log.ts"
import { makeNotifier } from "../postgres/relay/notify.ts"
import { makeSubjectKeys } from "../postgres/store/subject-keys.ts"
import { keyEncryptionKey } from "./environment.ts"

/**
 * Opens the event store and the keys that encrypt its personal data. Erasures by other processes are heard until the scope closes: then keys
 * and states in memory are dropped.
 */
export const openEvents = Effect.fnUntraced(function* (sql: Sql, options: PostgresEvents.EventStoreOptions) {
  const { store } = PostgresEvents.make(sql, options)
  const subjectKeys = makeSubjectKeys(sql, {
    keyEncryptionKey: yield* keyEncryptionKey,
    erased: () => executorOf(eventStore).forget()
  })
  const eventStore = sealing(store, subjectKeys)
  // while it cannot listen, keys in memory are a minute old at most
  yield* Effect.forkScoped(Effect.ignore(subjectKeys.listen))
  return { eventStore, subjectKeys }
})

/**
 * The event store and keys of a database in which the application was started before, for a command beside its processes or while none runs. It is
 * on the system's PostgreSQL, wherever its log is. Its appends wake the readers and the relays of other processes, and write the rows of inline
 * projections, whose code the application has.
 */
export const openEventsOfCommand = Effect.fnUntraced(function* (
  application: Pick<Application.Any, "projections">,
  sql: Sql
) {
  const { appended } = yield* PostgresLog.make(sql)
  return yield* openEvents(sql, { appended, application, published: makeNotifier(sql) })
})
/** The same, without the keys. */
export const openEventStore = (application: Pick<Application.Any, "projections">, sql: Sql) =>
  Effect.map(openEventsOfCommand(application, sql), ({ eventStore }) => eventStore)
