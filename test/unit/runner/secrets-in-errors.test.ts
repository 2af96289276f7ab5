// Where errors become text that is kept or sent, their passwords are masked.
import { assert, test } from "vitest"
import { describeError } from "../../../src/dead-letter/event-failure.ts"
import { KafkaFailure } from "../../../src/kafka/protocol/errors.ts"
import { toSqlError } from "../../../src/postgres/client/errors.ts"
import { PulsarFailure } from "../../../src/pulsar/client/errors.ts"
import { explain } from "../../../src/cli/command-failure.ts"

const leaking = "cannot reach amqp://user:hunter2@host"
const safe = "cannot reach amqp://user:***@host"

test("in a dead letter, also if the error is an object with a tag", () => {
  assert.strictEqual(describeError(new Error(leaking)).message, safe)
  assert.strictEqual(
    describeError({ _tag: "Lost", url: "amqp://u:hunter2@h" }).message,
    '{"_tag":"Lost","url":"amqp://u:***@h"}'
  )
  assert.strictEqual(describeError(leaking).message, safe)
})
test("in errors of PostgreSQL, Kafka and Pulsar", () => {
  assert.strictEqual(toSqlError("read", new Error(leaking)).message, `read: ${safe}`)
  assert.strictEqual(new KafkaFailure("lost", leaking).message, safe)
  assert.strictEqual(new PulsarFailure("lost", true, leaking).message, safe)
})
test("in what a command prints", () => {
  assert.strictEqual(
    explain({ message: leaking, try: `export X=${leaking}` }),
    `millrace: ${safe}\ntry: export X=${safe}`
  )
})
