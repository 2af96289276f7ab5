// What went wrong with Kafka, as one typed error: its kind for programs, one line for people. Every error that leaves this room is one.
import { maskSecrets } from "../../text/secrets.ts"
import { errorFromCode } from "./kafkajs.ts"

/**
 * What a caller can do about a failure.
 *
 * - `authentication`: the brokers refused the user, or the way of signing in
 * - `authorization`: the user may not do this
 * - `configuration`: addresses, TLS or versions do not fit; a person must correct them
 * - `unknownTopic`: the cluster has no such topic
 * - `refused`: a broker does not take these records or this topic
 * - `tooLarge`: a record or batch is larger than the topic takes
 * - `fenced`: another process took the transactional id over, or the broker ended the transaction
 * - `moved`: another broker leads or coordinates by now; ask for metadata and try again
 * - `busy`: the transaction before is still being ended; try again soon
 * - `lost`: the connection was lost or not made; the request may have been served or not
 * - `closed`: this process closed its connections
 * - `other`: anything else; `code` has Kafka's name of it
 */
export type FailureKind =
  | "authentication"
  | "authorization"
  | "configuration"
  | "unknownTopic"
  | "refused"
  | "tooLarge"
  | "fenced"
  | "moved"
  | "busy"
  | "lost"
  | "closed"
  | "other"

/** A partition of a topic. */
export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}
interface FailureDetails {
  readonly code?: string
  readonly retryable?: boolean
  readonly partition?: TopicPartition
  readonly cause?: unknown
}

/** A request to Kafka failed. The message is one line for the user: what is wrong, and what to do. */
export class KafkaFailure extends Error {
  override readonly name = "KafkaFailure"
  readonly kind: FailureKind
  /** Whether the same call may succeed later, with nothing corrected by hand. */
  readonly retryable: boolean
  /** Kafka's name of the error, such as `NOT_LEADER_OR_FOLLOWER`, or the system's, such as `ECONNREFUSED`; empty if it has none. */
  readonly code: string
  /** The partition that refused its part of a request; undefined if the failure is about the request as a whole. */
  readonly partition: TopicPartition | undefined
  constructor(kind: FailureKind, reason: string, details: FailureDetails = {}) {
    super(maskSecrets(reason), { cause: details.cause })
    this.kind = kind
    this.code = details.code ?? ""
    this.retryable = details.retryable ?? (kind === "moved" || kind === "busy" || kind === "lost")
    this.partition = details.partition
  }
}

/** Whether a person must correct something before the same call can succeed. */
export const needsPerson = ({ kind }: KafkaFailure): boolean =>
  kind === "authentication" || kind === "authorization" || kind === "configuration"

interface Known {
  readonly name?: string
  readonly type?: unknown
  readonly code?: unknown
  readonly message?: string
  readonly broker?: unknown
  readonly retriable?: unknown
  readonly cause?: unknown
}
const chainOf = (cause: unknown): ReadonlyArray<Known> => {
  const all: Array<Known> = []
  for (let one = cause as Known | null | undefined; one != null && all.length < 8; one = one.cause as Known)
    all.push(one)
  return all
}
const firstText = (values: ReadonlyArray<unknown>) => values.find((value): value is string => typeof value === "string")

/** Kafka's name of an error, wherever it is wrapped; else the system's code; else empty. */
const codeOf = (chain: ReadonlyArray<Known>): string =>
  firstText(chain.map(({ type }) => type)) ?? firstText(chain.map(({ code }) => code)) ?? ""

const reasons: Readonly<Record<string, readonly [retryable: boolean, reason: string]>> = {
  TOPIC_AUTHORIZATION_FAILED: [false, "the Kafka user may not use this topic: grant it Describe, Read and Write"],
  GROUP_AUTHORIZATION_FAILED: [false, "the Kafka user may not use the consumer group: grant it Read on the group"],
  CLUSTER_AUTHORIZATION_FAILED: [
    false,
    "the Kafka user may not do this on the cluster: grant it IdempotentWrite, Create and Alter"
  ],
  UNSUPPORTED_SASL_MECHANISM: [
    false,
    "the brokers do not support this SASL mechanism: correct MILLRACE_KAFKA_MECHANISM"
  ],
  ILLEGAL_SASL_STATE: [false, "the brokers expect no SASL, or another mechanism: correct MILLRACE_KAFKA_MECHANISM"],
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
  INVALID_TOPIC_EXCEPTION: [false, "this is not a valid topic name: use letters, digits, '.', '_' and '-', at most 249"]
}

const moved =
  /^(NOT_LEADER_FOR_PARTITION|LEADER_NOT_AVAILABLE|FENCED_LEADER_EPOCH|UNKNOWN_LEADER_EPOCH|REPLICA_NOT_AVAILABLE|UNKNOWN_TOPIC_OR_PARTITION|UNKNOWN_TOPIC_ID|KAFKA_STORAGE_ERROR|OFFSET_NOT_AVAILABLE|GROUP_LOAD_IN_PROGRESS|GROUP_COORDINATOR_NOT_AVAILABLE|NOT_COORDINATOR_FOR_GROUP)$/
const fenced = /^(INVALID_PRODUCER_EPOCH|PRODUCER_FENCED|INVALID_PRODUCER_ID_MAPPING|INVALID_TXN_STATE)$/
const tooLarge = /^(MESSAGE_TOO_LARGE|RECORD_LIST_TOO_LARGE)$/
const refused = /^(INVALID_TOPIC_EXCEPTION|INVALID_RECORD|POLICY_VIOLATION)$/
const tls = /^(CERT_|DEPTH_|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL|EPROTO|ERR_OSSL)/
const configuration = /^(UNSUPPORTED_|INVALID_TRANSACTION_TIMEOUT$|ENOTFOUND$|ERR_)/
const lostCodes = new Set(["ECONNRESET", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "EAI_AGAIN"])
const lostNames = /^KafkaJS(Connection|RequestTimeout|LockTimeout|Timeout)/
const signIn = /^(SASL_|UNSUPPORTED_SASL_MECHANISM$|ILLEGAL_SASL_STATE$)/

const kindOf = (code: string, chain: ReadonlyArray<Known>): FailureKind => {
  if (signIn.test(code) || chain.some(({ name }) => name === "KafkaJSSASLAuthenticationError")) return "authentication"
  if (code.endsWith("_AUTHORIZATION_FAILED")) return "authorization"
  if (tls.test(code) || configuration.test(code)) return "configuration"
  if (tooLarge.test(code)) return "tooLarge"
  if (fenced.test(code)) return "fenced"
  if (moved.test(code)) return "moved"
  if (refused.test(code)) return "refused"
  if (/^(CONCURRENT_TRANSACTIONS|UNSTABLE_OFFSET_COMMIT)$/.test(code)) return "busy"
  return lostCodes.has(code) || chain.some(({ name }) => lostNames.test(name ?? "")) ? "lost" : "other"
}

/** Whether trying again helps, and one line for the user. */
const reasonOf = (code: string, chain: ReadonlyArray<Known>): readonly [retryable: boolean, reason: string] => {
  const message = (chain[0]?.message ?? String(chain[0])).split("\n")[0]!
  if (code === "SASL_AUTHENTICATION_FAILED" || chain.some(({ name }) => name === "KafkaJSSASLAuthenticationError")) {
    return [
      false,
      `the brokers refused the user name or the password (${message}): correct MILLRACE_KAFKA_USERNAME and _PASSWORD`
    ]
  }
  const where = firstText(chain.map(({ broker }) => broker)) ?? "the given address"
  if (code === "ECONNREFUSED")
    return [true, `no broker answers at ${where}: start it, or correct MILLRACE_KAFKA_BROKERS`]
  if (code === "ENOTFOUND") return [true, `there is no host for ${where}: correct MILLRACE_KAFKA_BROKERS`]
  if (tls.test(code))
    return [false, `TLS with ${where} failed (${code}): correct MILLRACE_KAFKA_TLS_CA, _CERT and _KEY`]
  const known = reasons[code]
  if (known !== undefined) return known
  const isConnection = chain.some(
    ({ name }) => name?.startsWith("KafkaJSConnection") || name === "KafkaJSRequestTimeoutError"
  )
  // both are all that a client sees if one side speaks TLS and the other does not
  if (/before secure TLS connection/.test(message))
    return [
      true,
      `${where} closed the connection during the TLS handshake; if it always does, it does not speak TLS: correct MILLRACE_KAFKA_BROKERS, or unset MILLRACE_KAFKA_TLS and _TLS_CA, _CERT and _KEY`
    ]
  if (/Closed connection/.test(message))
    return [
      true,
      `${where} closed the connection; if it always does, it speaks TLS (set MILLRACE_KAFKA_TLS=true) or is not a broker of Kafka`
    ]
  if (isConnection || lostCodes.has(code))
    return [true, `the connection to ${where} was lost, or not made (${message}); try again`]
  return [chain.some(({ retriable }) => retriable === true), `${message}${code === "" ? "" : ` (${code})`}`]
}

const translated = (cause: unknown, partition?: TopicPartition): KafkaFailure => {
  const chain = chainOf(cause)
  const code = codeOf(chain)
  const [retryable, reason] = reasonOf(code, chain)
  const details = { code, retryable, cause }
  if (partition === undefined) return new KafkaFailure(kindOf(code, chain), reason, details)
  const where = code in reasons ? "" : `${partition.topic}/${partition.partition}: `
  return new KafkaFailure(kindOf(code, chain), `${where}${reason}`, { ...details, partition })
}

/** Any error as a `KafkaFailure`: itself, or the one that it wraps, else what kafkajs's or the system's error means. */
export const failureOf = (cause: unknown): KafkaFailure =>
  chainOf(cause).find((one): one is KafkaFailure => one instanceof KafkaFailure) ?? translated(cause)

/** Errors that kafkajs 2.2.4 has no name for. */
const newer: Readonly<Record<number, readonly [code: string, kind: FailureKind, reason: string]>> = {
  90: ["PRODUCER_FENCED", "fenced", "another producer took the transactional id over"],
  100: ["UNKNOWN_TOPIC_ID", "moved", "the broker does not know the topic (any more)"],
  103: ["INCONSISTENT_TOPIC_ID", "moved", "the broker does not know the topic (any more)"]
}

/** What a broker means by an error number, which is not 0. */
export const failureOfNumber = (number: number, partition?: TopicPartition): KafkaFailure => {
  const known = newer[number]
  if (known === undefined) return translated(errorFromCode(number), partition)
  const [code, kind, reason] = known
  return new KafkaFailure(kind, reason, { code, ...(partition !== undefined && { partition }) })
}
