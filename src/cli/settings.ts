// What is in force: the value of each environment variable of Millrace, where it came from, and what holds where it is not set. Pure.
import { mask, maskSecrets } from "../text/secrets.ts"
import { variables } from "./variables.ts"

/** What holds where a variable is not set, by its name without the prefix, as the page of the configuration says it. */
const defaults: Readonly<Record<string, string>> = {
  DATABASE_URL: "an embedded PostgreSQL",
  READER_URL: "the application's role",
  URL: "straight to the log",
  HTTP_HOST: "127.0.0.1",
  HTTP_AUTH: "required where others than this machine reach the server",
  JWT_KEYS: "no tokens",
  JWT_ALGORITHMS: "RS256,PS256,ES256,EdDSA",
  JWT_TENANT_CLAIM: "tenant",
  JWT_SCOPE_CLAIM: "scope",
  JWT_SCOPE_PREFIX: "millrace:",
  KAFKA_BROKERS: "the log is in the database",
  KAFKA_USERNAME: "no SASL",
  KAFKA_MECHANISM: "scram-sha-512",
  KAFKA_TLS: "true if a certificate is set",
  KAFKA_TLS_CA: "those of the runtime",
  KAFKA_COMPRESSION: "none",
  KAFKA_REPLICATION: "the broker's",
  KAFKA_MIN_ISR: "the broker's",
  KAFKA_SESSION_MS: "10000",
  KAFKA_REQUEST_MS: "20000",
  KAFKA_FETCH_BYTES: "67108864",
  PULSAR_URL: "derived topics stay in the log",
  PULSAR_ADMIN_URL: "the host of a WebSocket URL",
  PULSAR_TLS_CA: "those of the runtime",
  PULSAR_TENANT: "public",
  PULSAR_NAMESPACE: "alerts",
  PULSAR_CLIENT: "pulsar-client",
  KEY_ENCRYPTION_KEY: "keys are stored as they are",
  HEALTH_MAX_AGE: "60 seconds"
}
/** Variables whose value is a secret as a whole. In all others passwords are masked. */
const secrets = /_(PASSWORD|TOKEN|API_KEY|KEY_ENCRYPTION_KEY)$/

/** A setting that is in force. */
export interface Setting {
  /** The environment variable, or the option. */
  readonly name: string
  /** With secrets masked; null if it is not set and nothing holds in its place. */
  readonly value: string | null
  readonly from: "option" | "environment" | "default"
}

/** What holds for each variable. An empty variable counts as not set. */
export const settingsIn = (env: Readonly<Record<string, string | undefined>>): ReadonlyArray<Setting> =>
  variables.map((name) => {
    const value = env[name] ?? ""
    if (value === "") return { name, value: defaults[name.slice("MILLRACE_".length)] ?? null, from: "default" }
    return { name, value: secrets.test(name) ? mask : maskSecrets(value, env), from: "environment" }
  })
