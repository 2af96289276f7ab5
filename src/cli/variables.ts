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

/** What Kubernetes sets for services whose names begin with millrace. */
const ofKubernetes = /_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/
const isOfKubernetes = (name: string, value = "") =>
  ofKubernetes.test(name) || (name.endsWith("_PORT") && /^(tcp|udp|sctp):\/\//.test(value))
/** Words that stand for one of Millrace's in names that other programs have. */
const sameWords: ReadonlyArray<readonly [RegExp, string]> = [
  [/_(DB|PG|PGSQL|POSTGRES|POSTGRESQL)(?=_|$)/, "_DATABASE"],
  [/_(URI|DSN|CONNECTION_STRING)$/, "_URL"]
]
/** The variable that a name probably means: one that is similar, that goes on after it, or that has another word for the same thing. */
const meantBy = (name: string): string | undefined => {
  const same = sameWords.reduce((text, [word, ours]) => text.replace(word, ours), name.toUpperCase())
  return (
    variables.find((other) => other === same) ??
    variables.find((other) => isSimilar(name, other)) ??
    variables.find((other) => other.startsWith(`${same}_`))
  )
}

/**
 * The error of a variable whose name is almost that of one of Millrace's: without it the process would run against other services than was
 * meant. Undefined if there is none. Other names that begin with MILLRACE_ are left alone, as those that Kubernetes sets for a service called millrace.
 */
export const misspelledVariable = (env: Readonly<Record<string, string | undefined>>) => {
  for (const name of Object.keys(env)) {
    if (!/^MILL?RACE_/i.test(name) || variables.includes(name) || isOfKubernetes(name, env[name])) continue
    const problem = `the environment variable ${name} is not one of Millrace's`
    if (/^MILLRACE_(HTTP_)?PORT$/i.test(name))
      return usageError(problem, `the option --port N of dev and start sets the port; unset ${name}`)
    const meant = meantBy(name)
    if (meant !== undefined) return usageError(problem, `did you mean ${meant}? If not, unset ${name}`)
  }
  return undefined
}
