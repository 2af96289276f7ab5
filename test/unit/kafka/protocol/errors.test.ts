// What errors of kafkajs, Kafka and the system become: the kind for programs, and one line for people.
import { expect, test } from "vitest"
import { failureOf, failureOfNumber, KafkaFailure, needsPerson } from "../../../../src/kafka/protocol/errors.ts"

const error = (fields: object, message = "it failed") => Object.assign(new Error(message), fields)
const connection = { name: "KafkaJSConnectionError", broker: "a:1" }

test.each([
  ["a lost connection", error({ ...connection, code: "ECONNRESET" }), "lost", true],
  ["a refused connection", error({ ...connection, code: "ECONNREFUSED" }), "lost", true],
  ["an unknown host", error({ ...connection, code: "ENOTFOUND" }), "configuration", true],
  ["an untrusted certificate", error({ ...connection, code: "SELF_SIGNED_CERT_IN_CHAIN" }), "configuration", false],
  ["a wrong password", error({ name: "KafkaJSSASLAuthenticationError" }), "authentication", false],
  ["a forbidden topic", error({ type: "TOPIC_AUTHORIZATION_FAILED" }), "authorization", false],
  ["a moved leader", error({ type: "NOT_LEADER_FOR_PARTITION", retriable: true }), "moved", true],
  ["a new owner of a transactional id", error({ type: "INVALID_PRODUCER_EPOCH" }), "fenced", false],
  ["a transaction that is being ended", error({ type: "CONCURRENT_TRANSACTIONS", retriable: true }), "busy", true],
  ["a record that is too large", error({ type: "MESSAGE_TOO_LARGE" }), "tooLarge", false],
  ["an error within another", error({ cause: error({ type: "POLICY_VIOLATION" }) }), "refused", false],
  ["an error of the program", new TypeError("x is undefined"), "other", false]
] as const)("%s", (_, cause, kind, retryable) => {
  const failure = failureOf(cause)
  expect(failure).toMatchObject({ kind, retryable, cause })
  expect(failure.message).not.toContain("\n")
  expect(needsPerson(failure)).toBe(["authentication", "authorization", "configuration"].includes(kind))
})

test("a failure that is wrapped is found again, and stays as it is", () => {
  const failure = new KafkaFailure("unknownTopic", "the topic does not exist")
  expect(failureOf(failure)).toBe(failure)
  expect(failureOf(new Error("outside", { cause: failure }))).toBe(failure)
})

test("an error number of one partition names the partition, unless the text is about the topic", () => {
  const partition = { topic: "t", partition: 3 }
  expect(failureOfNumber(10, partition)).toMatchObject({ code: "MESSAGE_TOO_LARGE", kind: "tooLarge", partition })
  expect(failureOfNumber(10, partition).message).toBe(
    "a record is larger than the topic takes: raise max.message.bytes of the topic, or write less"
  )
  expect(failureOfNumber(2, partition).message).toMatch(/^t\/3: .* \(CORRUPT_MESSAGE\)$/)
})

test.each([
  [90, "PRODUCER_FENCED", "fenced"],
  [100, "UNKNOWN_TOPIC_ID", "moved"],
  [103, "INCONSISTENT_TOPIC_ID", "moved"]
] as const)("error number %i, which kafkajs has no name for, is %s", (number, code, kind) => {
  expect(failureOfNumber(number)).toMatchObject({ code, kind })
})
