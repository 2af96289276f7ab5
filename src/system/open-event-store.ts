// Opens the event store of a system for a command, beside its processes or while none of them runs.
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import type { Sql } from "../postgres/client/client.ts"
import * as PostgresEvents from "../postgres/events/events.ts"
import * as PostgresLog from "../postgres/log/log.ts"
import { makeNotifier } from "../postgres/relay/notify.ts"

/**
 * The event store of a database in which the application was started before. It is on the system's PostgreSQL, wherever its log is. Its appends
 * wake the readers and the relays of other processes, and write the rows of inline projections, whose code the application has.
 */
export const openEventStore = Effect.fnUntraced(function* (
  application: Pick<Application.Any, "projections">,
  sql: Sql
) {
  const { appended } = yield* PostgresLog.make(sql)
  return PostgresEvents.make(sql, { appended, application, published: makeNotifier(sql) }).store
})
