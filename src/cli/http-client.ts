// Requests of commands to a gateway, also with TLS: with an authority and a certificate that the settings name, which fetch cannot have.
import { readFileSync } from "node:fs"
import { type IncomingMessage, type OutgoingHttpHeaders, request as plainRequest } from "node:http"
import { Agent, request as tlsRequest } from "node:https"
import { createSecureContext } from "node:tls"
import { InvalidEnvironment } from "../system/errors.ts"

/** A request. */
export interface ClientRequest {
  readonly method: "GET" | "POST"
  readonly headers: OutgoingHttpHeaders
  readonly body?: string
  readonly signal: AbortSignal
}
/** The answer to a request, with its whole body. */
export interface ClientAnswer {
  readonly status: number
  readonly text: string
}
/** The answer to a request for a stream: its events, or what was answered in their place. */
export type StreamAnswer =
  | { readonly body: IncomingMessage }
  | { readonly body: undefined; readonly status: number; readonly text: string }
/** How a command recognizes a server, and what it presents to it. */
export interface ClientTls {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  /** Whether the server is this process, so that its certificate may have any name. */
  readonly isOwnServer?: boolean
}

const pem = (name: string): string | undefined => {
  const path = process.env[`MILLRACE_CLIENT_TLS_${name}`] ?? ""
  if (path === "") return undefined
  try {
    const text = readFileSync(path, "utf8")
    if (text.includes("-----BEGIN ")) return text
  } catch (cause) {
    throw new InvalidEnvironment({
      message: `MILLRACE_CLIENT_TLS_${name} is '${path}', which cannot be read: ${(cause as Error).message}`,
      try: "check that the file exists, and that this user may read it"
    })
  }
  throw new InvalidEnvironment({
    message: `MILLRACE_CLIENT_TLS_${name} is '${path}', which is no PEM file`,
    try: "name a file that begins with -----BEGIN"
  })
}
/** How commands recognize a gateway, by the settings. Throws `InvalidEnvironment`. */
export const clientTls = (): ClientTls => {
  const [ca, cert, key] = [pem("CA"), pem("CERT"), pem("KEY")]
  if ((cert === undefined) !== (key === undefined))
    throw new InvalidEnvironment({
      message: "MILLRACE_CLIENT_TLS_CERT and MILLRACE_CLIENT_TLS_KEY belong together, and one of them is not set",
      try: "set both, or none"
    })
  const tls = { ...(ca !== undefined && { ca }), ...(cert !== undefined && key !== undefined && { cert, key }) }
  try {
    createSecureContext(tls)
  } catch (cause) {
    throw new InvalidEnvironment({
      message: `TLS cannot use MILLRACE_CLIENT_TLS_CERT and MILLRACE_CLIENT_TLS_KEY: ${(cause as Error).message}`,
      try: "name a certificate and the key that it was made with"
    })
  }
  return tls
}

/** The credential of this command, if the settings have one. */
export const credential = (): Readonly<Record<string, string>> => {
  const key = process.env["MILLRACE_API_KEY"] ?? ""
  return key === "" ? {} : { authorization: `Bearer ${key}` }
}
/** What to do where the two ends do not accept each other's certificates. */
export const tlsAdvice =
  "name the authority of its certificate in MILLRACE_CLIENT_TLS_CA (or NODE_EXTRA_CA_CERTS), and a certificate of this command in MILLRACE_CLIENT_TLS_CERT and MILLRACE_CLIENT_TLS_KEY if it asks for one"

/** Errors of TLS that do not pass by waiting: the certificate of the server or that of this command is not accepted. */
const lasting = /^(ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|HOSTNAME_MISMATCH)/
/** Whether an error of a request says that the two ends do not accept each other's certificates, or do not both speak TLS. */
export const isRefusedByTls = (error: Error): boolean => lasting.test((error as NodeJS.ErrnoException).code ?? "")

/** Returns the sending of requests, which share connections. It rejects if no whole answer comes. */
export const httpClient = ({ isOwnServer = false, ...tls }: ClientTls) => {
  const agent = new Agent({
    ...tls,
    keepAlive: true,
    // the certificate itself is trusted, whoever signed it
    ...(isOwnServer && { checkServerIdentity: () => undefined, allowPartialTrustChain: true })
  })
  return (url: URL, { body, headers, method, signal }: ClientRequest): Promise<ClientAnswer> =>
    new Promise((resolve, reject) => {
      const length = body === undefined ? {} : { "content-length": Buffer.byteLength(body) }
      const options = { method, headers: { ...headers, ...length }, signal }
      const request = url.protocol === "https:" ? tlsRequest(url, { ...options, agent }) : plainRequest(url, options)
      request.once("error", reject)
      request.once("response", (response) => {
        const chunks: Array<Buffer> = []
        response.on("data", (chunk: Buffer) => chunks.push(chunk))
        response.once("error", reject)
        response.once("end", () =>
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") })
        )
      })
      request.end(body)
    })
}

const textOf = async (response: IncomingMessage): Promise<string> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString("utf8")
}
/** Returns the opening of streams of server-sent events. It rejects if no answer comes. */
export const httpStreams = (tls: Omit<ClientTls, "isOwnServer">) => {
  const agent = new Agent(tls)
  return (url: URL, { headers, signal }: Pick<ClientRequest, "headers" | "signal">): Promise<StreamAnswer> =>
    new Promise((resolve, reject) => {
      const options = { headers: { accept: "text/event-stream, application/json", ...headers }, signal }
      const request = url.protocol === "https:" ? tlsRequest(url, { ...options, agent }) : plainRequest(url, options)
      request.once("error", reject)
      request.once("response", (response) => {
        const { headers: answered, statusCode: status = 0 } = response
        if (status === 200 && answered["content-type"]?.startsWith("text/event-stream") === true)
          resolve({ body: response })
        else textOf(response).then((text) => resolve({ body: undefined, status, text }), reject)
      })
      request.end()
    })
}
