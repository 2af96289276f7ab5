// Tokens, certificates and permissions of a standalone Pulsar, for tests of connections. The secrets protect nothing.
import { createHmac, randomBytes } from "node:crypto"
import { join } from "node:path"
import { security as certificates } from "./kafka-security.ts"

/** The addresses of a secured broker, and the credentials that it accepts; files are PEM. */
export interface PulsarSecurity {
  readonly tls: {
    /** `pulsar+ssl://`, `https://`, `wss://`. */
    readonly broker: string
    readonly admin: string
    readonly webSocket: string
  }
  /** A token for a role; `admin` may do everything. */
  readonly token: (role: string) => string
  /** The authority that signed the broker's certificate and the client's, whose role is `client`. */
  readonly ca: string
  readonly cert: string
  readonly key: string
}
/** The role that may do everything. */
const superuser = "admin"

const tokens = (secret: Buffer) => (role: string) => {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url")
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: role })}`
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`
}

/** The settings of a secured broker, and the credentials of its clients. Throws with the reason `Missing` without openssl. */
export const security = (
  directory: string,
  brokerTls: number,
  webTls: number
): { readonly properties: Record<string, string>; readonly security: PulsarSecurity } => {
  const { ca, cert, key } = certificates(directory, [])
  const file = (name: string) => join(directory, "certificates", name)
  const secret = randomBytes(32)
  const token = tokens(secret)
  const provider = "org.apache.pulsar.broker.authentication.AuthenticationProvider"
  const properties = {
    authenticationEnabled: "true",
    authenticationProviders: `${provider}Token,${provider}Tls`,
    authorizationEnabled: "true",
    superUserRoles: superuser,
    tokenSecretKey: `data:;base64,${secret.toString("base64")}`,
    brokerClientAuthenticationPlugin: "org.apache.pulsar.client.impl.auth.AuthenticationToken",
    brokerClientAuthenticationParameters: `token:${token(superuser)}`,
    brokerServicePortTls: String(brokerTls),
    webServicePortTls: String(webTls),
    tlsCertificateFilePath: file("node.pem"),
    tlsKeyFilePath: file("node.key"),
    tlsTrustCertsFilePath: ca
  }
  const tls = {
    broker: `pulsar+ssl://127.0.0.1:${brokerTls}`,
    admin: `https://127.0.0.1:${webTls}`,
    webSocket: `wss://127.0.0.1:${webTls}`
  }
  return { properties, security: { tls, token, ca, cert, key } }
}
