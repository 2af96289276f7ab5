// The error of Pulsar's client. It turns what the transports, the handshake and the admin interface report into a kind and one line for the user.
import { maskSecrets } from "../../text/secrets.ts"

/** What went wrong. Code decides by it; the text is for people. */
export type FailureKind =
  /** Another consumer has the subscription, or another producer the name. */
  | "busy"
  /** The topic does not exist, or something in it that was asked for. */
  | "missing"
  /** The tenant or the namespace does not exist. */
  | "namespaceMissing"
  /** HTTP 404 without a reason. It may come from something between this process and Pulsar. */
  | "notFound"
  /** A tenant, namespace or topic cannot have this name. */
  | "invalidName"
  /** The broker rejects the token or the client certificate. No topic is to blame. */
  | "unauthenticated"
  /** The broker knows the role, and the role may not do this. */
  | "forbidden"
  /** The broker does not answer, or the connection was lost. */
  | "lost"
  /** A newer producer took over the name. */
  | "fenced"
  /** The URL of the admin interface is needed and not configured. */
  | "adminUnknown"
  /** The message is too large for Pulsar to ever accept it. */
  | "messageTooLarge"
  /** Anything else: no code depends on which. */
  | "other"

/** A failure of the client. Each port's adapter translates it into the port's own error. */
export class PulsarFailure extends Error {
  readonly _tag = "PulsarFailure"
  readonly kind: FailureKind
  /** Whether the same call may succeed later, with Pulsar and the configuration as they are. */
  readonly retryable: boolean
  constructor(kind: FailureKind, retryable: boolean, reason: string, cause?: unknown) {
    super(maskSecrets(reason), { cause })
    this.kind = kind
    this.retryable = retryable
  }
}

const isOneOf =
  (...kinds: ReadonlyArray<FailureKind>) =>
  ({ kind }: Pick<PulsarFailure, "kind">): boolean =>
    kinds.includes(kind)
/** Whether the topic, its namespace or its tenant was not found. */
export const isMissing = isOneOf("missing", "namespaceMissing", "notFound")
/**
 * Whether Pulsar refuses the topic itself: it does not exist, cannot exist, or the role may not use it. Trying again does not help, and neither do
 * other credentials of the same role. False for a 404 without a reason, which may not be Pulsar's.
 */
export const isTopicRefused = isOneOf("missing", "namespaceMissing", "invalidName", "forbidden")

const forbidden =
  "it is not allowed: give the role of MILLRACE_PULSAR_TOKEN, or of the client certificate, the permission on the namespace (run millrace pulsar apply as a superuser)"
const unauthenticated =
  "the broker refused the token or the certificate: correct MILLRACE_PULSAR_TOKEN, or MILLRACE_PULSAR_TLS_CERT and _KEY"
const createFirst =
  "create it first: millrace pulsar apply, with --tenants TENANT if the application does not declare the tenant"
const stopOther = "stop the other one first"
/** Why an answer may be unreadable, or none may come. */
export const mixedTls =
  "one side speaks TLS and the other does not: https://, pulsar+ssl:// and wss:// are for ports with TLS, http://, pulsar:// and ws:// for those without"

const missingNamespace = /(^|: )(tenant|namespace) (not found|does not exist)/i
/** The first match decides. */
const known: ReadonlyArray<readonly [pattern: RegExp, kind: FailureKind, retryable: boolean, advice: string]> = [
  [
    /wrong version number|record overflow|InvalidContentType|HPE_INVALID_CONSTANT|Expected HTTP/,
    "other",
    false,
    mixedTls
  ],
  // an alert is the broker's: it rejects the client's certificate, or wants one
  [
    /(ssl|tls\w*)[ _]alert|SSL alert number|fatal alert|key values mismatch|KEY_VALUES_MISMATCH/i,
    "unauthenticated",
    false,
    "the client's certificate is refused, or not its key's: correct MILLRACE_PULSAR_TLS_CERT and _KEY"
  ],
  [
    /MessageTooBig|TooLarge|exceeds maximum size|exceeds \d+ bytes/,
    "messageTooLarge",
    false,
    "make it smaller, or allow more: maxMessageSize of the broker, webSocketMaxTextFrameSize of its WebSocket interface"
  ],
  [/ProducerFenced|ProducerFencedException/, "fenced", false, "a newer producer took over; this one must stop"],
  [
    /ConsumerBusy|ProducerBusy|SubscriptionBusy|already connected|is already used|different type/,
    "busy",
    false,
    stopOther
  ],
  [
    /Authorization|not authorized|Unauthorized|don't have permission|Forbidden|permission/i,
    "forbidden",
    false,
    forbidden
  ],
  [/Authentication|AuthN|token/i, "unauthenticated", false, unauthenticated],
  [
    /InvalidTopicName|Invalid named entity/,
    "invalidName",
    false,
    "names of tenants, namespaces and topics have letters, digits, -, =, :, . and _ only"
  ],
  [missingNamespace, "namespaceMissing", false, `${createFirst}, or correct MILLRACE_PULSAR_TENANT and _NAMESPACE`],
  [
    /TopicNotFound|NotFound|does not exist|not found/,
    "missing",
    false,
    `${createFirst}, or correct MILLRACE_PULSAR_TENANT and _NAMESPACE`
  ],
  [
    /certificate|self.signed|CERT_|UNABLE_TO_|ERR_TLS|EPROTO/i,
    "other",
    false,
    "the broker's certificate is not trusted: set MILLRACE_PULSAR_TLS_CA to the authority that signed it, and use a host name in the URL that the certificate has"
  ],
  [/ProducerQueueIsFull/, "other", true, "send fewer messages at once"],
  [/Quota/, "other", true, "the backlog quota is used up because subscriptions lag behind"],
  [
    /socket hang up|before secure TLS connection/,
    "lost",
    true,
    `Pulsar closed the connection; if it always does, ${mixedTls}`
  ],
  [
    /ECONNREFUSED|ConnectError|TimeOut|Timeout|timed out|Retryable|NotConnected|Disconnected|ServiceUnitNotReady|ServiceNotReady|AlreadyClosed|ECONNRESET|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|LookupError|socket hang up|TooMany/,
    "lost",
    true,
    "Pulsar does not answer: start it, or correct MILLRACE_PULSAR_URL or MILLRACE_PULSAR_ADMIN_URL"
  ]
]

/** An error's first line, without the position in OpenSSL's source and without advice about Node's flags. */
const lineOf = (text: string) =>
  text
    .split("\n")[0]!
    .replace(/(?:write EPROTO )?[0-9A-F]*:?error:[0-9A-F]+:[^:]*:[^:]*:([^:]+)(?::\S+?:\d+:)?/, "$1 ")
    .replace(/; if the root CA is installed locally.*?--use-system-ca/, "")
    .replace(/\s+/g, " ")
    .trim()

/** The failure that an error of a client or a socket stands for. `where` says what was attempted. A `PulsarFailure` is returned as it is. */
export const failureOf = (cause: unknown, where: string): PulsarFailure => {
  if (cause instanceof PulsarFailure) return cause
  const { code, message = String(cause) } = (cause ?? {}) as { readonly code?: unknown; readonly message?: string }
  const text = lineOf(typeof code === "string" && !message.includes(code) ? `${message} ${code}` : message)
  const found = known.find(([pattern]) => pattern.test(text))
  if (found === undefined) return new PulsarFailure("other", false, `${where}: ${text}`, cause)
  const [, kind, retryable, advice] = found
  return new PulsarFailure(kind, retryable, `${where}: ${text}; ${advice}`, cause)
}
const statuses: Readonly<Record<number, readonly [kind: FailureKind, retryable: boolean, advice: string]>> = {
  401: ["unauthenticated", false, unauthenticated],
  403: ["forbidden", false, forbidden],
  404: ["missing", false, createFirst],
  409: ["busy", false, stopOther]
}
const entities: Readonly<Record<string, string>> = { quot: '"', apos: "'", amp: "&", lt: "<", gt: ">" }
/** The reason in a body: the admin interface's JSON, or an error page, either perhaps with the broker's own error inside. Empty if there is none. */
const reasonIn = (body: string): string => {
  const given =
    /"reason"\s*:\s*"((?:[^"\\]|\\.)*)"/.exec(body)?.[1] ?? /MESSAGE:<\/th><td>([^<]*)/.exec(body)?.[1] ?? ""
  const text = given.replace(/&(\w+);/g, (whole, name: string) => entities[name] ?? whole)
  const inner = /^(.*?)\{"errorMsg":"(.*?)","reqId"/.exec(text)
  return inner === null ? text : `${inner[1]}${inner[2]!.replace(/^org\.apache\.pulsar\.[\w.$]*?(\w+): /, "$1: ")}`
}
/** The failure that an HTTP response with an error status stands for. `where` says what was attempted. */
export const failureOfStatus = (status: number, body: string, where: string): PulsarFailure => {
  const text = reasonIn(body)
  const what = `${where}: ${text === "" ? `HTTP ${status}` : text}`
  // Pulsar answers 401 also to a role that it knows and that lacks the permission
  const found = statuses[status === 401 && /^(Unauthorized to|Not authorized)|permission/i.test(text) ? 403 : status]
  if (found !== undefined) {
    const [kind, retryable, advice] = found
    const exact =
      kind !== "missing" ? kind : text === "" ? "notFound" : missingNamespace.test(text) ? "namespaceMissing" : kind
    return new PulsarFailure(exact, retryable, `${what}; ${advice}`)
  }
  const byText = failureOf(new Error(text), where)
  return byText.kind === "other" ? new PulsarFailure("other", status >= 500 || status === 429, what) : byText
}
