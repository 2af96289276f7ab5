// Options of a connection to Pulsar, given in code or read from the environment.
import { readFileSync } from "node:fs"

/** Certificates as PEM text. */
export interface PulsarTls {
  /** Authorities that signed the servers' certificates. Default: the system's. */
  readonly ca?: string
  /** The client's certificate and its key, where the servers ask for one. */
  readonly cert?: string
  readonly key?: string
}
/** Options of a connection. Everything but the URL has a default. */
export interface PulsarOptions {
  /**
   * `pulsar://` and `pulsar+ssl://` need the native client, the package `pulsar-client`; `ws://` and `wss://` need no native code.
   */
  readonly url: string
  /**
   * The admin interface, `http://` or `https://`, which tells whether topics exist, describes subscriptions and removes them. Default: the
   * host and port of a `ws://` or `wss://` URL; none with the other URLs.
   */
  readonly adminUrl?: string
  /** Signs in with a token (JWT). */
  readonly token?: string
  readonly tls?: PulsarTls
  /** The tenant of topics that are not named in full, as `persistent://TENANT/NAMESPACE/TOPIC`. Default `public`. */
  readonly tenant?: string
  /** The namespace of such topics. Default `alerts`. */
  readonly namespace?: string
  /** The package of the native client, by name or path. Default `pulsar-client`. */
  readonly client?: string
  /** How long connecting, subscribing, an admin request or the broker's receipt may take, in milliseconds. Default 10,000. */
  readonly timeoutMs?: number
}

/** The defaults of options. */
export const defaults = { tenant: "public", namespace: "alerts", client: "pulsar-client", timeoutMs: 10_000 } as const

/** Whether a URL asks for the WebSocket transport. Throws if it starts with none of the four schemes. */
export const isWebSocket = (url: string): boolean => {
  const scheme = /^(pulsar|pulsar\+ssl|ws|wss):\/\/[^/]/.exec(url)?.[1]
  if (scheme === undefined)
    throw new Error(
      `'${url}' is no URL of Pulsar: such a URL starts with pulsar://, pulsar+ssl://, ws:// or wss://, followed by a host`
    )
  return scheme.startsWith("ws")
}
/** The URL of the admin interface, without a slash at the end; undefined if it is not known. Throws if it is not an HTTP URL. */
export const adminUrlOf = ({ adminUrl, url }: Pick<PulsarOptions, "adminUrl" | "url">): string | undefined => {
  const given = adminUrl ?? (isWebSocket(url) ? url.replace(/^ws/, "http") : undefined)
  if (given !== undefined && !/^https?:\/\/[^/]/.test(given))
    throw new Error(`'${given}' is no URL of Pulsar's admin interface: such a URL starts with http:// or https://`)
  return given?.replace(/\/+$/, "")
}
/** Options from the environment for the admin interface alone. They need no `MILLRACE_PULSAR_URL`. Throws if the interface's URL is not known. */
export const adminOptionsFrom = (env: Readonly<Record<string, string | undefined>>): PulsarOptions => {
  const url = env["MILLRACE_PULSAR_URL"]
  // only the admin interface is connected to
  const options = optionsFrom({
    ...env,
    MILLRACE_PULSAR_URL: url === undefined || url === "" ? "pulsar://localhost" : url
  })!
  if (adminUrlOf(options) === undefined)
    throw new Error("Pulsar's admin interface is not known: set MILLRACE_PULSAR_ADMIN_URL, as in http://localhost:8080")
  return options
}

/**
 * PulsarOptions from `MILLRACE_PULSAR_URL`, `_ADMIN_URL`, `_TOKEN`, `_TLS_CA`, `_TLS_CERT`, `_TLS_KEY` (PEM files), `_TENANT`, `_NAMESPACE` and
 * `_CLIENT`. Undefined without `MILLRACE_PULSAR_URL`. Throws an error that names the variable if a value is not usable.
 */
export const optionsFrom = (env: Readonly<Record<string, string | undefined>>): PulsarOptions | undefined => {
  const of = (name: string) => (env[`MILLRACE_PULSAR_${name}`] === "" ? undefined : env[`MILLRACE_PULSAR_${name}`])
  const url = of("URL")
  if (url === undefined) return undefined
  isWebSocket(url)
  const text = (name: string) => {
    const path = of(name)
    if (path === undefined) return undefined
    const read = () => {
      try {
        return readFileSync(path, "utf8")
      } catch (cause) {
        throw new Error(`MILLRACE_PULSAR_${name} is '${path}', which cannot be read`, { cause })
      }
    }
    const pem = read()
    // clients ignore anything else without an error
    if (!pem.includes("-----BEGIN ")) throw new Error(`MILLRACE_PULSAR_${name} is '${path}', which is no PEM file`)
    return pem
  }
  const [ca, cert, key] = [text("TLS_CA"), text("TLS_CERT"), text("TLS_KEY")]
  if ((cert === undefined) !== (key === undefined))
    throw new Error("MILLRACE_PULSAR_TLS_CERT and MILLRACE_PULSAR_TLS_KEY belong together: set both, or none")
  const tls = {
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key })
  }
  const given = { adminUrl: of("ADMIN_URL"), token: of("TOKEN"), tenant: of("TENANT"), namespace: of("NAMESPACE") }
  const all = { ...given, client: of("CLIENT"), tls: Object.keys(tls).length === 0 ? undefined : tls }
  const named = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
  const options = { url, ...(named as Omit<PulsarOptions, "url">) }
  adminUrlOf(options)
  return options
}
