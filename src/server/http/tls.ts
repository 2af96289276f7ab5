// TLS of the server: reads certificate, key and authorities from files, refuses what cannot work, and follows the files when they change.
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto"
import { readFileSync } from "node:fs"
import { createSecureContext, type SecureContextOptions, type Server as TlsServer } from "node:tls"
import * as Schema from "effect/Schema"

/** The files of a server's TLS. */
export interface TlsOptions {
  /** PEM files of the certificate, with those between it and the authority, and of its key. */
  readonly cert: string
  readonly key: string
  /** PEM file of the authorities that sign certificates of clients. Undefined: clients are not asked for one. */
  readonly ca?: string | undefined
  /** Whether a client needs a certificate of these authorities. Default true. */
  readonly needsClients?: boolean
  /** How often the files are looked at, in milliseconds. What is read twice in a row is used. Default 2,000. */
  readonly pollMs?: number
}
/** A certificate, its key or an authority cannot be used. */
export class TlsUnusable extends Schema.TaggedError<TlsUnusable>()("TlsUnusable", {
  message: Schema.String,
  /** What to do about it. */
  try: Schema.String
}) {}

/** The texts of the files. */
export interface TlsTexts {
  readonly cert: string
  readonly key: string
  readonly ca: string | undefined
}
const unusable = (message: string, advice: string) => new TlsUnusable({ message, try: advice })

const read = (path: string, what: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch (cause) {
    throw unusable(
      `the ${what} ${path} cannot be read: ${(cause as Error).message}`,
      "check that the file exists, and that the server's user may read it"
    )
  }
}
const textsOf = ({ ca, cert, key }: TlsOptions): TlsTexts => ({
  cert: read(cert, "certificate"),
  key: read(key, "key of the certificate"),
  ca: ca === undefined ? undefined : read(ca, "file of authorities")
})

const certificatesIn = (text: string, path: string): ReadonlyArray<X509Certificate> => {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? []
  try {
    const found = blocks.map((block) => new X509Certificate(block))
    // a file that is being written may end in the middle of a certificate
    if (found.length > 0 && found.length === text.split("-----BEGIN CERTIFICATE-----").length - 1) return found
  } catch {
    // refused below
  }
  throw unusable(
    `${path} does not have certificates in PEM format`,
    "write them as -----BEGIN CERTIFICATE----- … (openssl x509 -inform der -in FILE converts one)"
  )
}
const keyIn = (text: string, path: string): KeyObject => {
  try {
    return createPrivateKey(text)
  } catch {
    const isEncrypted = text.includes("ENCRYPTED")
    throw unusable(
      `${path} ${isEncrypted ? "has a key that is encrypted" : "does not have a private key in PEM format"}`,
      isEncrypted
        ? "write it without a passphrase (openssl pkey -in FILE -out PLAIN), readable for the server's user alone"
        : "write it as -----BEGIN PRIVATE KEY----- …"
    )
  }
}

/** Throws `TlsUnusable` if a server with these texts could not serve its clients. */
const check = ({ ca, cert, key }: TlsTexts, options: TlsOptions, now: number): void => {
  const [leaf] = certificatesIn(cert, options.cert)
  const until = Date.parse(leaf!.validTo)
  if (until <= now)
    throw unusable(
      `the certificate ${options.cert} expired at ${new Date(until).toISOString()}`,
      "renew it; a running server takes the new one without a restart"
    )
  const from = Date.parse(leaf!.validFrom)
  if (from > now)
    throw unusable(
      `the certificate ${options.cert} is valid from ${new Date(from).toISOString()} on`,
      "check the clock of this machine, or use a certificate that is valid now"
    )
  if (!leaf!.checkPrivateKey(keyIn(key, options.key)))
    throw unusable(
      `the key ${options.key} does not belong to the certificate ${options.cert}`,
      "name the key that the certificate was made with; in a file with several certificates the server's is the first"
    )
  if (ca !== undefined) certificatesIn(ca, options.ca!)
  try {
    createSecureContext(contextOf({ ca, cert, key }))
  } catch (cause) {
    throw unusable(`TLS cannot use ${options.cert} and ${options.key}: ${(cause as Error).message}`, "use other ones")
  }
}
const contextOf = ({ ca, cert, key }: TlsTexts): SecureContextOptions => ({
  cert,
  key,
  ...(ca !== undefined && { ca }),
  minVersion: "TLSv1.2"
})

/** Reads and checks the files. Throws `TlsUnusable`. */
export const readTls = (options: TlsOptions, now = Date.now()): TlsTexts => {
  const texts = textsOf(options)
  check(texts, options, now)
  return texts
}

/** The options of a server of `node:https`. */
export const serverOptionsOf = (texts: TlsTexts, { ca, needsClients = true }: TlsOptions, handshakeMs: number) => ({
  ...contextOf(texts),
  handshakeTimeout: handshakeMs,
  requestCert: ca !== undefined,
  rejectUnauthorized: ca !== undefined && needsClients
})

/** What following the files reports. */
export interface TlsReport {
  readonly level: "info" | "warning"
  readonly message: string
}
/**
 * Makes a server use new files once they were read twice in a row without a change, and belong together: connections that are open keep theirs.
 * Until then, and if they cannot be used, it goes on with the old ones. `onAuthorities` gets those of clients whenever they are used. Returns a function
 * that stops it.
 */
export const followTls = (
  server: Pick<TlsServer, "setSecureContext">,
  options: TlsOptions,
  first: TlsTexts,
  report: (report: TlsReport) => void,
  onAuthorities?: (authorities: ReadonlyArray<X509Certificate>) => void
): (() => void) => {
  const identity = (texts: TlsTexts) => JSON.stringify([texts.cert, texts.key, texts.ca])
  let used = identity(first)
  let before = used
  let failure = ""
  const look = () => {
    try {
      const texts = textsOf(options)
      const found = identity(texts)
      const isStable = found === before
      before = found
      if (found === used || !isStable) return
      check(texts, options, Date.now())
      server.setSecureContext(contextOf(texts))
      if (texts.ca !== undefined) onAuthorities?.(certificatesIn(texts.ca, options.ca!))
      used = found
      failure = ""
      const [leaf] = certificatesIn(texts.cert, options.cert)
      report({ level: "info", message: `TLS uses the new certificate ${options.cert}, valid until ${leaf!.validTo}` })
    } catch (error) {
      const { message } = error as Error
      if (message === failure) return
      failure = message
      report({ level: "warning", message: `TLS goes on with the certificate that it has: ${message}` })
    }
  }
  const timer = setInterval(look, options.pollMs ?? 2_000)
  timer.unref()
  return () => clearInterval(timer)
}
