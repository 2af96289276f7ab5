// How commands print things for people.
import { assert, test } from "vitest"
import { statusTable } from "../../../src/cli/tables.ts"

test("the status counts dead letters of projections and of relays, and names the command that lists them", () => {
  const status = { healthy: true, projections: [], relays: [{ target: "pulsar", lag: 0, halted: null }] }
  assert.include(
    statusTable({ ...status, dead_letters: 2, parked_messages: 3 }),
    "\nrelay to pulsar: 0 messages behind\ndead letters of projections: 2, of relays: 3; millrace dlq list shows them\nhealthy"
  )
  assert.include(
    statusTable({ ...status, dead_letters: 0, parked_messages: 0 }),
    "\ndead letters of projections: 0, of relays: 0\nhealthy"
  )
})
