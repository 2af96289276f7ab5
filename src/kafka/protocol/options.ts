// The options of connections to Kafka, given in code or by the environment.
import { readFileSync } from "node:fs"
import type { ConnectionOptions } from "node:tls"

/** How record batches are compressed on the wire and on the broker's disk. */
export type Compression = "none" | "gzip" | "snappy" | "lz4" | "zstd"
/** How to sign in to the brokers. */
export interface Sasl {
  readonly mechanism: "plain" | "scram-sha-256" | "scram-sha-512"
  readonly username: string
  readonly password: string
}
/** How to connect to Kafka and use it. Everything but `brokers` has a default. */
export interface KafkaOptions {
  /** `host:port` of some brokers; they name the others. */
  readonly brokers: ReadonlyArray<string>
  /** The client's name in the brokers' logs and quotas. Default `millrace`. */
  readonly clientId?: string
  readonly sasl?: Sasl
  /** True for TLS with the system's authorities; or authorities and a client certificate, as `node:tls` takes them. */
  readonly tls?: boolean | ConnectionOptions
  /**
   * The compression of batches that this process appends; batches with any other are read. Default: `zstd` for what a relay publishes, and
   * `none` for what the log and the bridge append.
   */
  readonly compression?: Compression
  /** The replication factor of topics that `declare` creates. Default: the broker's. */
  readonly replicationFactor?: number
  /** `min.insync.replicas` of topics that `declare` creates. Default: the broker's. */
  readonly minInSyncReplicas?: number
  /** Further settings of topics that `declare` creates, by their names on Kafka, such as `remote.storage.enable`. */
  readonly topicSettings?: Readonly<Record<string, string>>
  /**
   * How long a member of a group may be silent before its partitions go to others, in milliseconds. Brokers require at least 6,000 by
   * default. Default 10,000.
   */
  readonly sessionMs?: number
  /** How often a member sends a heartbeat and hears of changes, in milliseconds. Default 500. */
  readonly heartbeatMs?: number
  /** How long joining a group is tried while no coordinator answers, in milliseconds. Default: 12 times `sessionMs`. */
  readonly joinMs?: number
  /** How long connecting may take, and as long again signing in, in milliseconds. Default 5,000. */
  readonly connectMs?: number
  /** How long a request may wait for its answer before its connection counts as hung and is replaced, in milliseconds. Default 20,000. */
  readonly requestMs?: number
  /**
   * About how many bytes of fetched records all readers of the process hold together; with many partitions each fetches less at once. Default
   * 96 MiB.
   */
  readonly fetchBytes?: number
  /** How long an append is repeated while brokers are away, in milliseconds. Default 30,000. */
  readonly deliveryMs?: number
}

/** Refuses a value of the environment. */
const refuse = (text: string): never => {
  throw new Error(text)
}
const mechanisms = ["plain", "scram-sha-256", "scram-sha-512"] as const

/** The text of a PEM file; undefined if the variable is not set. */
const pemFrom = (env: Readonly<Record<string, string | undefined>>, name: string): string | undefined => {
  const path = env[name]
  if (path === undefined || path === "") return undefined
  const read = () => {
    try {
      return readFileSync(path, "utf8")
    } catch {
      return refuse(`${name} is '${path}', which cannot be read`)
    }
  }
  const pem = read()
  return pem.includes("-----BEGIN ") ? pem : refuse(`${name} is '${path}', which is no PEM file`)
}
const tlsFrom = (env: Readonly<Record<string, string | undefined>>): boolean | ConnectionOptions | undefined => {
  const [ca, cert, key] = ["CA", "CERT", "KEY"].map((name) => pemFrom(env, `MILLRACE_KAFKA_TLS_${name}`))
  if ((cert === undefined) !== (key === undefined))
    refuse("MILLRACE_KAFKA_TLS_CERT and MILLRACE_KAFKA_TLS_KEY belong together: set both, or none")
  const asked = (env["MILLRACE_KAFKA_TLS"] ?? "").toLowerCase()
  // anything else would go on without TLS, and send the password in plain text
  if (asked !== "" && asked !== "true" && asked !== "false")
    refuse(`MILLRACE_KAFKA_TLS is '${env["MILLRACE_KAFKA_TLS"]}'; it must be true or false`)
  const files = {
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key })
  }
  const hasFiles = Object.keys(files).length > 0
  if (asked === "false" && hasFiles)
    refuse(
      "MILLRACE_KAFKA_TLS is false, but certificates are given: unset it, or MILLRACE_KAFKA_TLS_CA, _CERT and _KEY"
    )
  return hasFiles ? files : asked === "true" || undefined
}

/**
 * Options from `MILLRACE_KAFKA_BROKERS` (comma-separated), `_USERNAME`, `_PASSWORD`, `_MECHANISM` (default `scram-sha-512`), `_TLS` (`true` or `false`),
 * `_TLS_CA`, `_TLS_CERT`, `_TLS_KEY` (PEM files), `_COMPRESSION`, `_REPLICATION`, `_MIN_ISR`, `_SESSION_MS`, `_REQUEST_MS` and `_FETCH_BYTES`.
 * Undefined without brokers. Throws an Error that names the variable if a value is not valid.
 */
export const optionsFrom = (env: Readonly<Record<string, string | undefined>>): KafkaOptions | undefined => {
  const of = (name: string) => (env[`MILLRACE_KAFKA_${name}`] === "" ? undefined : env[`MILLRACE_KAFKA_${name}`])
  const brokers = (of("BROKERS") ?? "").split(",").map((broker) => broker.trim())
  if (brokers.every((broker) => broker === "")) return undefined
  const one = <A extends string>(name: string, values: ReadonlyArray<A>): A | undefined => {
    const value = of(name)?.toLowerCase()
    const found = values.find((other) => other === value)
    return value !== undefined && found === undefined
      ? refuse(`MILLRACE_KAFKA_${name} is '${value}'; it must be one of ${values.join(", ")}`)
      : found
  }
  const whole = (name: string) => {
    const value = of(name)
    if (value !== undefined && !/^[1-9]\d*$/.test(value))
      refuse(`MILLRACE_KAFKA_${name} is '${value}'; it must be a whole number of at least 1`)
    return value === undefined ? undefined : Number(value)
  }
  const username = of("USERNAME")
  const password = of("PASSWORD")
  if ((username === undefined) !== (password === undefined))
    refuse("MILLRACE_KAFKA_USERNAME and MILLRACE_KAFKA_PASSWORD belong together: set both, or none")
  const mechanism = one("MECHANISM", mechanisms) ?? "scram-sha-512"
  const compression = one("COMPRESSION", ["none", "gzip", "snappy", "lz4", "zstd"] as const)
  const replicationFactor = whole("REPLICATION")
  const minInSyncReplicas = whole("MIN_ISR")
  const sessionMs = whole("SESSION_MS")
  const requestMs = whole("REQUEST_MS")
  const fetchBytes = whole("FETCH_BYTES")
  const tls = tlsFrom(env)
  return {
    brokers: brokers.filter((broker) => broker !== ""),
    ...(username !== undefined && { sasl: { mechanism, username, password: password! } }),
    ...(tls !== undefined && { tls }),
    ...(compression !== undefined && { compression }),
    ...(replicationFactor !== undefined && { replicationFactor }),
    ...(minInSyncReplicas !== undefined && { minInSyncReplicas }),
    ...(sessionMs !== undefined && { sessionMs }),
    ...(requestMs !== undefined && { requestMs }),
    ...(fetchBytes !== undefined && { fetchBytes })
  }
}
