// What kafkajs's and Kafka's errors mean to a user of the log: whether to try again, and what to do. One line each.
import * as Effect from "effect/Effect"
import { LogError, UnknownTopic } from "../../log/log.ts"
import { unknownTopic } from "../../log/rules.ts"

/** An error of this adapter's own making, with the text for the user. */
export class KafkaFailure extends Error {
  readonly retryable: boolean
  /** A Kafka error's name, such as `NOT_LEADER_FOR_PARTITION`, or a system's, such as `ECONNREFUSED`. */
  readonly type: string
  constructor(type: string, reason: string, retryable: boolean, cause?: unknown) {
    super(reason, { cause })
    this.type = type
    this.retryable = retryable
  }
}

interface Known {
  readonly name?: string
  readonly type?: unknown
  readonly code?: unknown
  readonly message?: string
  readonly broker?: unknown
  readonly retriable?: unknown
  readonly cause?: unknown
}
const chain = (cause: unknown): ReadonlyArray<Known> => {
  const all: Array<Known> = []
  for (let one = cause as Known | null | undefined; one != null && all.length < 8; one = one.cause as Known)
    all.push(one)
  return all
}

/** The name of a Kafka error, wherever it is wrapped; else the system's code; else empty. */
export const typeOf = (cause: unknown): string => {
  const all = chain(cause)
  const text = (value: unknown) => (typeof value === "string" ? value : undefined)
  return (
    all.map((one) => text(one.type)).find((type) => type !== undefined) ??
    all.map((one) => text(one.code)).find((code) => code !== undefined) ??
    ""
  )
}

const lost = new Set(["ECONNRESET", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "EAI_AGAIN"])
const known: Readonly<Record<string, readonly [retryable: boolean, reason: string]>> = {
  TOPIC_AUTHORIZATION_FAILED: [false, "the Kafka user may not use this topic: grant it Describe, Read and Write"],
  GROUP_AUTHORIZATION_FAILED: [false, "the Kafka user may not use the consumer group: grant it Read on the group"],
  CLUSTER_AUTHORIZATION_FAILED: [
    false,
    "the Kafka user may not do this on the cluster: grant it IdempotentWrite, Create and Alter"
  ],
  UNSUPPORTED_SASL_MECHANISM: [false, "the brokers do not know this SASL mechanism: correct MILLRACE_KAFKA_MECHANISM"],
  ILLEGAL_SASL_STATE: [false, "the brokers expect no SASL, or another one: correct MILLRACE_KAFKA_MECHANISM"],
  MESSAGE_TOO_LARGE: [
    false,
    "a record is larger than the topic takes: raise max.message.bytes of the topic, or write less"
  ],
  RECORD_LIST_TOO_LARGE: [false, "a batch is larger than a segment of the topic: raise segment.bytes of the topic"],
  INVALID_REPLICATION_FACTOR: [
    false,
    "there are fewer brokers than replicas asked for: lower the replication factor, or add brokers"
  ],
  NOT_ENOUGH_REPLICAS: [
    true,
    "fewer replicas are in sync than min.insync.replicas asks for: bring the other brokers back"
  ],
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: [true, "replicas fell out of sync during the append: bring the other brokers back"],
  POLICY_VIOLATION: [false, "a policy of the cluster forbids it"],
  INVALID_TOPIC_EXCEPTION: [false, "Kafka takes no such name: use letters, digits, '.', '_' and '-', at most 249"]
}
const systems: Readonly<Record<string, (where: string) => readonly [boolean, string]>> = {
  ECONNREFUSED: (where) => [true, `no broker answers at ${where}: start it, or correct MILLRACE_KAFKA_BROKERS`],
  ENOTFOUND: (where) => [true, `there is no host for ${where}: correct MILLRACE_KAFKA_BROKERS`]
}
const tls = /^(CERT_|DEPTH_|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL|EPROTO|ERR_OSSL)/

/** Retryable, and one line for the user. */
export const reasonOf = (cause: unknown): readonly [retryable: boolean, reason: string] => {
  const all = chain(cause)
  const own = all.find((one) => one instanceof KafkaFailure) as KafkaFailure | undefined
  if (own !== undefined) return [own.retryable, own.message]
  const type = typeOf(cause)
  const message = (all[0]?.message ?? String(cause)).split("\n")[0]!
  if (all.some(({ name }) => name === "KafkaJSSASLAuthenticationError") || type === "SASL_AUTHENTICATION_FAILED") {
    return [
      false,
      `the brokers refused the user name or the password (${message}): correct MILLRACE_KAFKA_USERNAME and _PASSWORD`
    ]
  }
  const where = String(all.find((one) => typeof one.broker === "string")?.broker ?? "the given address")
  const system = systems[type]
  if (system !== undefined) return system(where)
  if (tls.test(type))
    return [false, `TLS with ${where} failed (${type}): correct MILLRACE_KAFKA_TLS_CA, _CERT and _KEY`]
  const one = known[type]
  if (one !== undefined) return one
  const connection = all.some(
    ({ name }) => name?.startsWith("KafkaJSConnection") || name === "KafkaJSRequestTimeoutError"
  )
  if (connection || lost.has(type))
    return [true, `the connection to ${where} was lost, or not made (${message}); try again`]
  return [all.some(({ retriable }) => retriable === true), `${message}${type === "" ? "" : ` (${type})`}`]
}

/** Translates an error of the driver's. */
export const logError = (operation: LogError["operation"], topic: string) => (cause: unknown) => {
  const [retryable, reason] = reasonOf(cause)
  return new LogError({ operation, topic, retryable, reason, cause })
}

/** Runs a promise for the log. What the port's errors say stays as it is; a topic that is not there is one of them. */
export const attempt = <A, E extends LogError | UnknownTopic = LogError | UnknownTopic>(
  operation: LogError["operation"],
  topic: string,
  run: (signal: AbortSignal) => Promise<A>
): Effect.Effect<A, E> =>
  Effect.tryPromise({
    try: run,
    catch: (cause) => {
      if (cause instanceof LogError || cause instanceof UnknownTopic) return cause as E
      if (typeOf(cause) === "UNKNOWN_TOPIC_OR_PARTITION") return unknownTopic(topic) as E
      return logError(operation, topic)(cause) as E
    }
  })
