// The environment variables of Millrace, and the error of one that is not among them.
import { usageError } from "./command-failure.ts"
import { isSimilar } from "../text/similar-names.ts"
import { fileVariableOf, settingsVariable, settingTable } from "./setting-table.ts"

/** Every environment variable that Millrace reads, but for those with `_FILE`. */
export const variables: ReadonlyArray<string> = [...settingTable.map(({ variable }) => variable), settingsVariable]
const known: ReadonlyArray<string> = [
  ...variables,
  ...settingTable.flatMap(({ secret, variable }) => (secret === undefined ? [] : [fileVariableOf(variable)]))
]

/** What Kubernetes sets for services whose names begin with millrace. */
const ofKubernetes = /_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/
/** Whether Kubernetes sets a variable for a service whose name begins with millrace. */
export const isOfKubernetes = (name: string, value = ""): boolean =>
  ofKubernetes.test(name) || (name.endsWith("_PORT") && /^(tcp|udp|sctp):\/\//.test(value))
/** Words that stand for one of Millrace's in names that other programs have. */
const sameWords: ReadonlyArray<readonly [RegExp, string]> = [
  [/_(DB|PG|PGSQL|POSTGRES|POSTGRESQL)(?=_|$)/, "_DATABASE"],
  [/_(URI|DSN|CONNECTION_STRING)$/, "_URL"],
  [/^MILLRACE_PORT$/, "MILLRACE_HTTP_PORT"]
]
/** The variable that a name probably means: one that is similar, that goes on after it, or that has another word for the same thing. */
const meantBy = (name: string): string | undefined => {
  const same = sameWords.reduce((text, [word, ours]) => text.replace(word, ours), name.toUpperCase())
  return (
    known.find((other) => other === same) ??
    known.find((other) => isSimilar(name, other)) ??
    known.find((other) => other.startsWith(`${same}_`))
  )
}

/**
 * The error of a variable whose name is almost that of one of Millrace's: without it the process would run against other services than was
 * meant. Undefined if there is none. Other names that begin with MILLRACE_ are left alone, as those that Kubernetes sets for a service called millrace.
 */
export const misspelledVariable = (env: Readonly<Record<string, string | undefined>>) => {
  for (const name of Object.keys(env)) {
    if (!/^MILL?RACE_/i.test(name) || known.includes(name) || isOfKubernetes(name, env[name])) continue
    const meant = meantBy(name)
    if (meant !== undefined)
      return usageError(
        `the environment variable ${name} is not one of Millrace's`,
        `did you mean ${meant}? If not, unset ${name}`
      )
  }
  return undefined
}
