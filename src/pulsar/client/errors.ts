// What Pulsar's errors mean to a user: which kind, whether to try again, and what to do. One line each.
import { FanOutError } from "../../subscription/fanout.ts"

/** What went wrong, as far as the code goes by it. */
export type Kind =
  /** Another consumer has the subscription, or another producer the name. */
  | "busy"
  /** There is no such topic, or namespace. */
  | "missing"
  /** The credentials are wrong, or the role may not. */
  | "denied"
  /** A connection was lost, or not made. */
  | "lost"
  /** A newer producer fenced this one. */
  | "fenced"
  /** The message is one that Pulsar does not take, whatever is done: too large, above all. */
  | "refused"
  | "other"

/** An error of this adapter, with the text for the user. */
export class PulsarFailure extends Error {
  readonly kind: Kind
  readonly retryable: boolean
  constructor(kind: Kind, retryable: boolean, reason: string, cause?: unknown) {
    super(reason, { cause })
    this.kind = kind
    this.retryable = retryable
  }
}

const denied =
  "it is not allowed: give the role of MILLRACE_PULSAR_TOKEN, or of the client certificate, what it needs on the namespace (millrace pulsar apply, as a superuser)"
const unknown =
  "the broker refused the token or the certificate: correct MILLRACE_PULSAR_TOKEN, or MILLRACE_PULSAR_TLS_CERT and _KEY"
/** What an answer that is no answer may come from. */
export const mixed =
  "one side speaks TLS and the other does not: https://, pulsar+ssl:// and wss:// are for ports with TLS, http://, pulsar:// and ws:// for those without"
const known: ReadonlyArray<readonly [pattern: RegExp, kind: Kind, retryable: boolean, advice: string]> = [
  [
    /MessageTooBig|TooLarge|exceeds maximum size|exceeds \d+ bytes/,
    "refused",
    false,
    "make it smaller, or allow more: maxMessageSize of the broker, webSocketMaxTextFrameSize of its WebSocket interface"
  ],
  [/ProducerFenced|ProducerFencedException/, "fenced", false, "a newer producer took over; this one must end"],
  [
    /ConsumerBusy|ProducerBusy|SubscriptionBusy|already connected|is already used|different type/,
    "busy",
    false,
    "end the other one first"
  ],
  [/Authorization|not authorized|Unauthorized|don't have permission|Forbidden|permission/i, "denied", false, denied],
  [/Authentication|AuthN|token/i, "denied", false, unknown],
  [
    /InvalidTopicName|Invalid named entity/,
    "missing",
    false,
    "names of tenants, namespaces and topics have letters, digits, -, =, :, . and _ only"
  ],
  [
    /TopicNotFound|NotFound|does not exist|not found/,
    "missing",
    false,
    "make it first: millrace pulsar apply, or correct MILLRACE_PULSAR_TENANT and _NAMESPACE"
  ],
  [/wrong version number|record overflow|InvalidContentType|HPE_INVALID_CONSTANT|Expected HTTP/, "other", false, mixed],
  [
    /(ssl|tls\w*) alert|SSL alert number|fatal alert|key values mismatch|KEY_VALUES_MISMATCH/i,
    "denied",
    false,
    "the client's certificate is refused, or not its key's: correct MILLRACE_PULSAR_TLS_CERT and _KEY"
  ],
  [
    /certificate|self.signed|CERT_|UNABLE_TO_|ERR_TLS|EPROTO/i,
    "other",
    false,
    "the broker's certificate is not trusted: set MILLRACE_PULSAR_TLS_CA to who signed it, and the host of the URL to a name that it has"
  ],
  [/ProducerQueueIsFull/, "other", true, "fewer messages may be under way at once"],
  [/Quota/, "other", true, "consumers do not follow: the backlog quota is used up"],
  [
    /ECONNREFUSED|ConnectError|TimeOut|Timeout|timed out|Retryable|NotConnected|Disconnected|ServiceUnitNotReady|ServiceNotReady|AlreadyClosed|ECONNRESET|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|LookupError|socket hang up|TooMany/,
    "lost",
    true,
    "Pulsar does not answer: start it, or correct MILLRACE_PULSAR_URL or MILLRACE_PULSAR_ADMIN_URL"
  ]
]

/** An error's first line, without where in OpenSSL's source it came up and what to start Node with. */
const lineOf = (text: string) =>
  text
    .split("\n")[0]!
    .replace(/(?:write EPROTO )?[0-9A-F]*:?error:[0-9A-F]+:[^:]*:[^:]*:([^:]+)(?::\S+?:\d+:)?/, "$1 ")
    .replace(/; if the root CA is installed locally.*?--use-system-ca/, "")
    .replace(/\s+/g, " ")
    .trim()

/** What an error of a client, or an answer of a server, means. */
export const failureOf = (cause: unknown, where: string): PulsarFailure => {
  if (cause instanceof PulsarFailure) return cause
  const { code, message = String(cause) } = (cause ?? {}) as { readonly code?: unknown; readonly message?: string }
  const text = lineOf(typeof code === "string" && !message.includes(code) ? `${message} ${code}` : message)
  const found = known.find(([pattern]) => pattern.test(text))
  if (found === undefined) return new PulsarFailure("other", false, `${where}: ${text}`, cause)
  const [, kind, retryable, advice] = found
  return new PulsarFailure(kind, retryable, `${where}: ${text}; ${advice}`, cause)
}
/** Whether a topic is not there, or may not be used: no matter of time, nor of who asks. An answer that says nothing is none. */
export const isRefusal = ({ kind, message }: PulsarFailure): boolean =>
  (kind === "missing" && !/: HTTP \d+; /.test(message)) || (kind === "denied" && message.endsWith(denied))
const statuses: Readonly<Record<number, readonly [kind: Kind, retryable: boolean, advice: string]>> = {
  401: ["denied", false, unknown],
  403: ["denied", false, denied],
  404: ["missing", false, "make it first: millrace pulsar apply"],
  409: ["busy", false, "end the other one first"]
}
const entities: Readonly<Record<string, string>> = { quot: '"', apos: "'", amp: "&", lt: "<", gt: ">" }
/** What a body says, be it the admin interface's JSON or the page of an error, perhaps with the broker's own error in it. */
const reasonIn = (body: string): string => {
  const given =
    /"reason"\s*:\s*"((?:[^"\\]|\\.)*)"/.exec(body)?.[1] ?? /MESSAGE:<\/th><td>([^<]*)/.exec(body)?.[1] ?? ""
  const text = given.replace(/&(\w+);/g, (whole, name: string) => entities[name] ?? whole)
  const inner = /^(.*?)\{"errorMsg":"(.*?)","reqId"/.exec(text)
  return inner === null ? text : `${inner[1]}${inner[2]!.replace(/^org\.apache\.pulsar\.[\w.$]*?(\w+): /, "$1: ")}`
}
/** What an HTTP answer that is no success means. */
export const failureOfStatus = (status: number, body: string, where: string): PulsarFailure => {
  const text = reasonIn(body)
  const what = `${where}: ${text === "" ? `HTTP ${status}` : text}`
  // what a role may not do is answered as if it were nobody
  const found = statuses[status === 401 && /^(Unauthorized to|Not authorized)|permission/i.test(text) ? 403 : status]
  if (found !== undefined) return new PulsarFailure(found[0], found[1], `${what}; ${found[2]}`)
  const byText = failureOf(new Error(text), where)
  return byText.kind === "other" ? new PulsarFailure("other", status >= 500 || status === 429, what) : byText
}

/** As an error of the port. */
export const fanOutError =
  (operation: string) =>
  (cause: unknown): FanOutError => {
    const failure = failureOf(cause, operation)
    return new FanOutError({ operation, retryable: failure.retryable, reason: failure.message, cause })
  }
