// Wakes the relays, and the workers of timers, of all processes after a commit.
import type { Sql } from "../client/client.ts"
import { outboxChannel } from "./outbox.ts"

/**
 * Returns a function that notifies a channel, by default that of the relays, and never waits. Calls while a notification is under way share the
 * next one.
 */
export const makeNotifier = (sql: Sql, channel = outboxChannel): (() => void) => {
  let wanted = false
  let busy = false
  const notify = async () => {
    busy = true
    while (wanted) {
      wanted = false
      // if the notification is lost, who listens finds the commit with the next poll
      await sql`select pg_notify(${channel}, '')`.catch(() => undefined)
    }
    busy = false
  }
  return () => {
    wanted = true
    if (!busy) void notify()
  }
}
