// Each place where text leaves for people or logs masks passwords by itself.
import { expect, test } from "vitest"
import { explain } from "../../../src/cli/command-failure.ts"
import { describeError } from "../../../src/dead-letter/event-failure.ts"
import { KafkaFailure } from "../../../src/kafka/protocol/errors.ts"
import { toSqlError } from "../../../src/postgres/client/errors.ts"
import { PulsarFailure } from "../../../src/pulsar/client/errors.ts"

const text = "cannot reach postgres://user:hunter2@host/db?sslpassword=hunter2"
const masked = "cannot reach postgres://user:***@host/db?sslpassword=***"

test("errors of commands, statements and brokers, and those that handlers throw, have masked passwords", () => {
  expect(explain(new Error(text))).toBe(`millrace: ${masked}`)
  expect(explain({ message: "refused", try: text })).toBe(`millrace: refused\ntry: ${masked}`)
  expect(toSqlError("connect", new Error(text)).message).toBe(`connect: ${masked}`)
  expect(describeError(new Error(text)).message).toBe(masked)
  expect(new KafkaFailure("lost", text).message).toBe(masked)
  expect(new PulsarFailure("lost", true, text).message).toBe(masked)
})
