// Masks passwords and tokens in text that people or logs will see: in URLs, well-formed or not, in settings, and wherever the environment's own
// secrets appear.

/** What stands in the place of a secret. */
export const mask = "***"

type Environment = Readonly<Record<string, string | undefined>>

const secretName =
  "(?:[a-z0-9]{1,20}[_-]){0,4}(?:pass(?:word|wd|phrase|code)?|ssl_?password|pwd|secret|(?:access|auth|refresh|id)?_?-?token|api[_-]?key|sasl[_-]?jaas[_-]?config|credentials?|private[_-]?key)"
const parameter = new RegExp(`([?&;]${secretName}=)[^&\\s"'\`#;]*`, "gi")
const assignment = new RegExp(
  `(\\b${secretName}\\s*=\\s*)("(?:[^"\\\\]|\\\\.)*"|'(?:[^'\\\\]|\\\\.)*'|[^\\s,;&"'\`)]+)`,
  "gi"
)
const property = new RegExp(`(["']${secretName}["']\\s*:\\s*)("(?:[^"\\\\]|\\\\.)*"|'(?:[^'\\\\]|\\\\.)*')`, "gi")
const authorization = /\b((?:authorization\s*[:=]\s*)?(?:bearer|basic)\s+)[\w+/.~-]{8,}=*/gi
const jsonWebToken = /\beyJ[\w-]{5,}\.[\w-]*\.?[\w-]*/g
const privateKey = /-----BEGIN ([A-Z ]*PRIVATE KEY)-----[\s\S]*?(?:-----END \1-----|$)/g

const wordWithUser = /[^\s"'`<>|]+/g
const scheme =
  /[a-z][a-z0-9+.-]{0,20}:\/{1,3}|^\/\/|^(?:postgres(?:ql)?|pulsar(?:\+ssl)?|kafka|redis|https?|wss?):(?!\d)/i
/**
 * A URL, or what may be one, without its password. A password may hold any character, so all between the user and the last @ of the word
 * counts as one. A user alone is kept, except in front of a website, where it may be a token.
 */
const maskUser = (word: string): string => {
  const at = word.lastIndexOf("@")
  if (at <= 0 || !/[\w[]/.test(word[at + 1] ?? "")) return word
  const match = scheme.exec(word.slice(0, at))
  const name = match?.[0].toLowerCase() ?? ""
  const start = match === null ? 0 : match.index + match[0].length
  const user = word.slice(start, at)
  const colon = user.indexOf(":")
  if (/^(file|node):/.test(name) || (match === null && /^(npm|jsr|mailto):|^[^:]*\//.test(user))) return word
  if (colon >= 0) return `${word.slice(0, start + colon)}:${mask}${word.slice(at)}`
  return /^(https?|wss?):/.test(name) && !user.includes("/") ? `${word.slice(0, start)}${mask}${word.slice(at)}` : word
}

const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
/** The secrets in a value of the environment, as it may appear in a text. */
const secretsIn = (name: string, value: string): ReadonlyArray<string> => {
  if (!/URL|PROXY|BROKERS|DATABASE/i.test(name)) return [value, value.trim()]
  const passwords = [...value.matchAll(/:\/{0,3}[^:@]*:(.*)@/gs)].map(([, password = ""]) => password)
  const parameters = [...value.matchAll(new RegExp(`[?&]${secretName}=([^&#]*)`, "gi"))].map(([, text = ""]) => text)
  return [...passwords, ...parameters]
}
/** A word that is a secret by chance, such as `postgres`, would mask half of every message. */
const isTelling = (secret: string) => secret.length >= 6 && !/^[a-z]+$/i.test(secret)

const cache = { from: "", secrets: [] as ReadonlyArray<string> }
/** The secrets that the environment holds, the longest first. */
const known = (environment: Environment): ReadonlyArray<string> => {
  const named = Object.entries(environment).filter(
    ([name, value = ""]) =>
      value !== "" &&
      (/^MILLRACE_.*(URL|TOKEN|PASSWORD|BROKERS|SECRET)$/.test(name) || /^(PGPASSWORD|(https?|all)_proxy)$/i.test(name))
  )
  const from = named.join("\n")
  if (from === cache.from) return cache.secrets
  const raw = named.flatMap(([name, value = ""]) => secretsIn(name, value))
  const forms = raw.flatMap((secret) => [
    secret,
    decoded(secret),
    encodeURIComponent(secret),
    encodeURI(secret),
    JSON.stringify(secret).slice(1, -1)
  ])
  cache.secrets = [...new Set(forms)].filter(isTelling).toSorted((a, b) => b.length - a.length)
  cache.from = from
  return cache.secrets
}

/**
 * The text with `***` in the place of every password and token: after the user of a URL, also if the URL is malformed or in the middle of
 * a text; in parameters and settings with a telling name, such as `?sslpassword=`, `password='…'` or `"token": "…"`; JSON web tokens and private keys;
 * and the values of `MILLRACE_` variables that hold secrets, in plain and percent-encoded form. Masking twice changes nothing. Never throws.
 */
export const maskSecrets = (text: string, environment: Environment = process.env): string => {
  let masked = text
  for (const secret of known(environment)) masked = masked.replaceAll(secret, mask)
  return masked
    .replaceAll(privateKey, mask)
    .replaceAll(parameter, `$1${mask}`)
    .replaceAll(wordWithUser, maskUser)
    .replaceAll(property, `$1"${mask}"`)
    .replaceAll(assignment, `$1${mask}`)
    .replaceAll(authorization, `$1${mask}`)
    .replaceAll(jsonWebToken, mask)
}
