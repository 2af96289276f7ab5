// Which kind of failure each error of Pulsar (4.0.7) becomes, over both transports and the admin interface, and what the bridge makes of each kind.
import { assert, describe, it } from "@effect/vitest"
import { bridgeError } from "../../../src/pulsar/bridge-side.ts"
import {
  failureOf,
  failureOfStatus,
  type FailureKind,
  isMissing,
  isTopicRefused,
  PulsarFailure
} from "../../../src/pulsar/client/errors.ts"

const reported = (text: string) => failureOf(new Error(text), "produce to t")
const answered = (status: number, reason: string) => failureOfStatus(status, JSON.stringify({ reason }), "GET t")

const causes: ReadonlyArray<readonly [kind: FailureKind, retryable: boolean, failure: PulsarFailure]> = [
  ["missing", false, reported("Failed to create producer: TopicNotFound")],
  ["missing", false, answered(404, "Topic persistent://a/b/c not found")],
  ["namespaceMissing", false, answered(404, "Namespace not found")],
  ["namespaceMissing", false, answered(404, "Tenant does not exist")],
  ["namespaceMissing", false, reported("Failed to look up: Namespace not found")],
  ["notFound", false, failureOfStatus(404, "<html>", "GET t")],
  ["invalidName", false, reported("Failed to create producer: InvalidTopicName")],
  ["invalidName", false, answered(412, "Invalid named entity: a b")],
  ["forbidden", false, reported("Failed to create producer: AuthorizationError")],
  ["forbidden", false, answered(401, "Unauthorized to validateTopicOperation for operation [LOOKUP] on topic [t]")],
  ["forbidden", false, answered(401, "Not authorized")],
  ["forbidden", false, answered(403, "Forbidden")],
  ["unauthenticated", false, reported("Failed to create producer: AuthenticationError")],
  ["unauthenticated", false, reported("Authentication refused: JWT signature does not match")],
  ["unauthenticated", false, answered(401, "Authentication required")],
  ["unauthenticated", false, failureOfStatus(401, "", "GET t")],
  ["busy", false, reported("Failed to create producer: ProducerBusy")],
  ["busy", false, answered(409, "Subscription is already used")],
  ["fenced", false, reported("ProducerFenced")],
  ["messageTooLarge", false, reported("Failed to send message: MessageTooBig")],
  ["messageTooLarge", false, reported("the message takes a frame of 2 bytes, which exceeds maximum size 1")],
  ["lost", true, reported("Failed to create producer: TimeOut")],
  ["lost", true, reported("Failed to create producer: ServiceUnitNotReady")],
  ["lost", true, reported("connect ECONNREFUSED 127.0.0.1:8080")],
  ["lost", true, reported("socket hang up ECONNRESET")],
  ["other", true, reported("Failed to create producer: ProducerBlockedQuotaExceededError")],
  ["other", true, reported("ProducerQueueIsFull")],
  ["other", true, answered(503, "Service Unavailable")],
  ["other", true, failureOfStatus(500, "", "GET t")],
  ["other", false, reported("unable to verify the first certificate UNABLE_TO_VERIFY_LEAF_SIGNATURE")],
  ["other", false, reported("80F0:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:ssl.c:1:")],
  ["other", false, reported("something else")]
]
/** What Node, Node's OpenSSL with an error code, and Deno report when a broker rejects a client's certificate. */
const alerts = [
  "tlsv1 alert unknown ca",
  "40A7:error:0A000412:SSL routines:ssl3_read_bytes:sslv3 alert bad certificate:ssl/record/rec_layer_s3.c:1586:SSL alert number 42",
  "write EPROTO 40A7:error:0A00045C:SSL routines:ssl3_read_bytes:tlsv13 alert certificate required:ssl/record/rec_layer_s3.c:1586:SSL alert number 116",
  "Client network socket failed ERR_SSL_TLSV1_ALERT_UNKNOWN_CA",
  "Client network socket failed ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_EXPIRED",
  "received fatal alert: CertificateRequired",
  "received fatal alert: BadCertificate",
  "error:05800074:x509 certificate routines::key values mismatch ERR_OSSL_X509_KEY_VALUES_MISMATCH"
]

describe("an error of Pulsar", () => {
  it("becomes a failure whose kind and retryability say what it is", () => {
    for (const [kind, retryable, failure] of causes)
      assert.deepStrictEqual([failure.kind, failure.retryable], [kind, retryable], failure.message)
  })
  it("is a credential problem if it is the TLS alert of a broker that rejects the client's certificate", () => {
    for (const text of alerts) {
      const failure = reported(text)
      assert.deepStrictEqual([failure.kind, failure.retryable], ["unauthenticated", false], failure.message)
      assert.match(failure.message, /the client's certificate is refused, or not its key's/)
    }
  })
  it("refuses the topic only if the topic does not exist, cannot exist, or is forbidden", () => {
    const refused = new Set<FailureKind>(["missing", "namespaceMissing", "invalidName", "forbidden"])
    for (const [kind, , failure] of causes)
      assert.strictEqual(isTopicRefused(failure), refused.has(kind), failure.message)
  })
  it("means that the topic is missing for every kind of not found, and for no other kind", () => {
    const missing = new Set<FailureKind>(["missing", "namespaceMissing", "notFound"])
    for (const [kind, , failure] of causes) assert.strictEqual(isMissing(failure), missing.has(kind), failure.message)
  })
})

describe("the bridge", () => {
  it("writes off a message only if its topic or the message is refused, and halts only if a person must act", () => {
    const expected: Readonly<Record<FailureKind, readonly [kind: string, retryable: boolean]>> = {
      missing: ["refused", false],
      namespaceMissing: ["refused", false],
      notFound: ["refused", false],
      invalidName: ["refused", false],
      forbidden: ["refused", false],
      messageTooLarge: ["refused", false],
      busy: ["busy", true],
      fenced: ["fenced", true],
      unauthenticated: ["other", false],
      adminUnknown: ["other", false],
      lost: ["other", true],
      other: ["other", true]
    }
    const failures = [
      ...causes.map(([, , failure]) => failure),
      ...alerts.map(reported),
      new PulsarFailure("adminUnknown", false, "the URL of the admin interface is not known")
    ]
    assert.deepStrictEqual(
      new Set(failures.map(({ kind }) => kind)),
      new Set(Object.keys(expected) as Array<FailureKind>)
    )
    for (const failure of failures) {
      const { kind, reason, retryable, topic } = bridgeError("send", "t")(failure)
      assert.deepStrictEqual([kind, retryable], expected[failure.kind], failure.message)
      assert.deepStrictEqual([reason, topic], [failure.message, "t"])
    }
  })
})
