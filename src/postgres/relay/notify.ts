// Wakes the relays of other processes after a commit.
import type { Sql } from "../client/client.ts"
import { outboxChannel } from "./outbox.ts"

/** Returns a function that notifies the relays and never waits. Calls while a notification is under way share the next one. */
export const makeNotifier = (sql: Sql): (() => void) => {
  let wanted = false
  let busy = false
  const notify = async () => {
    busy = true
    while (wanted) {
      wanted = false
      // if the notification is lost, the relays find the commit with their next poll
      await sql`select pg_notify(${outboxChannel}, '')`.catch(() => undefined)
    }
    busy = false
  }
  return () => {
    wanted = true
    if (!busy) void notify()
  }
}
