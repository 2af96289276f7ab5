// What answers of Pulsar mean for what waits: texts as brokers say them (4.0.7), over both transports and the admin interface.
import { assert, describe, it } from "@effect/vitest"
import { failureOf, failureOfStatus, isRefusal } from "../../../src/pulsar/client/errors.ts"

const said = (text: string) => failureOf(new Error(text), "produce to t")
const answered = (status: number, reason: string) => failureOfStatus(status, JSON.stringify({ reason }), "GET t")

describe("a refusal by Pulsar", () => {
  it("is that something is not there, or not allowed", () => {
    for (const failure of [
      said("Failed to create producer: TopicNotFound"),
      said("Failed to create producer: AuthorizationError"),
      answered(404, "Namespace not found"),
      answered(404, "Tenant does not exist"),
      answered(401, "Unauthorized to validateTopicOperation for operation [LOOKUP] on topic [t]"),
      answered(401, "Not authorized")
    ])
      assert.isTrue(isRefusal(failure), failure.message)
  })
  it("is no broker that is away or busy, no wrong token or certificate, no full topic, and no answer that says nothing", () => {
    for (const failure of [
      said("Failed to create producer: TimeOut"),
      said("Failed to create producer: ServiceUnitNotReady"),
      said("Failed to create producer: ProducerBusy"),
      said("Failed to create producer: ProducerBlockedQuotaExceededError"),
      said("connect ECONNREFUSED 127.0.0.1:8080"),
      said("Failed to create producer: AuthenticationError"),
      said("tlsv1 alert unknown ca"),
      said("something else"),
      answered(401, "Authentication required"),
      answered(503, "Service Unavailable"),
      failureOfStatus(404, "<html>", "GET t"),
      failureOfStatus(500, "", "GET t")
    ])
      assert.isFalse(isRefusal(failure), failure.message)
  })
})
