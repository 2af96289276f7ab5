// The environment variables of Millrace, and what is said of one that is not among them.
import { usageError } from "./command-failure.ts"
import { isSimilar } from "../text/similar-names.ts"

const kafka = ["BROKERS", "USERNAME", "PASSWORD", "MECHANISM", "TLS", "TLS_CA", "TLS_CERT", "TLS_KEY", "COMPRESSION"]
const kafkaNumbers = ["REPLICATION", "MIN_ISR", "SESSION_MS", "REQUEST_MS", "FETCH_BYTES"]
const pulsar = ["URL", "ADMIN_URL", "TOKEN", "TLS_CA", "TLS_CERT", "TLS_KEY", "TENANT", "NAMESPACE", "CLIENT"]
/** Every environment variable that Millrace reads. */
export const variables: ReadonlyArray<string> = [
  "DATABASE_URL",
  "READER_URL",
  "URL",
  "HTTP_HOST",
  "HTTP_HOSTS",
  "HTTP_AUTH",
  "API_KEY",
  ...["KEYS", "ISSUER", "AUDIENCE", "ALGORITHMS", "TENANT_CLAIM", "SCOPE_CLAIM", "SCOPE_PREFIX"].map(
    (name) => `JWT_${name}`
  ),
  "HEALTH_MAX_AGE",
  "KEY_ENCRYPTION_KEY",
  "DEBUG",
  ...[...kafka, ...kafkaNumbers].map((name) => `KAFKA_${name}`),
  ...pulsar.map((name) => `PULSAR_${name}`)
].map((name) => `MILLRACE_${name}`)

/**
 * The error of a variable whose name is almost that of one of Millrace's: without it the process would run against other services than was
 * meant. Undefined if there is none. Other names that begin with MILLRACE_ are left alone: Kubernetes sets some for a service called millrace.
 */
export const misspelledVariable = (env: Readonly<Record<string, string | undefined>>) => {
  for (const name of Object.keys(env)) {
    if (!/^MILL?RACE_/i.test(name) || variables.includes(name)) continue
    const meant = variables.find((other) => isSimilar(name, other))
    if (meant !== undefined)
      return usageError(
        `the environment variable ${name} is not one of Millrace's`,
        `did you mean ${meant}? If not, unset ${name}`
      )
  }
  return undefined
}
