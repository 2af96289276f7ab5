// Listeners of a Kafka node that require passwords and certificates, for tests of connections. The secrets protect nothing.
import { execFileSync } from "node:child_process"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { StackError } from "./errors.ts"

/** The listeners of a secured node, and the credentials that they accept; files are PEM. */
export interface Security {
  /** Requires a password by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; no TLS. */
  readonly sasl: string
  /** Requires TLS with a client certificate. */
  readonly tls: string
  /** Requires a password, over TLS. */
  readonly saslTls: string
  readonly username: string
  readonly password: string
  /** The authority that signed the node's certificate and the client's. */
  readonly ca: string
  readonly cert: string
  readonly key: string
}

const username = "millrace"
const password = "spring-well"

/** Creates certificates in `directory` and returns the addresses of the three listeners. Throws with the reason `Missing` without openssl. */
export const security = (directory: string, ports: ReadonlyArray<number>): Security => {
  const [sasl, tls, saslTls] = ports.map((port) => `127.0.0.1:${port}`)
  const folder = join(directory, "certificates")
  mkdirSync(folder, { recursive: true })
  const file = (name: string) => join(folder, name)
  const subject = (name: string) => ["-subj", `/CN=${name}`, "-days", "30"]
  const fresh = (name: string) => ["-newkey", "rsa:2048", "-nodes", "-keyout", file(`${name}.key`)]
  openssl(["req", "-x509", ...fresh("ca"), "-out", file("ca.pem"), ...subject("Millrace test authority")])
  writeFileSync(file("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
  for (const name of ["node", "client"]) {
    openssl(["req", ...fresh(name), "-out", file(`${name}.csr`), "-subj", `/CN=${name}`])
    const signed = ["-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-CAcreateserial", "-days", "30"]
    openssl([
      "x509",
      "-req",
      "-in",
      file(`${name}.csr`),
      ...signed,
      "-extfile",
      file("names"),
      "-out",
      file(`${name}.pem`)
    ])
  }
  const both = readFileSync(file("node.key"), "utf8") + readFileSync(file("node.pem"), "utf8")
  writeFileSync(file("node-store.pem"), both, { mode: 0o600 })
  const files = { ca: file("ca.pem"), cert: file("client.pem"), key: file("client.key") }
  return { sasl: sasl ?? "", tls: tls ?? "", saslTls: saslTls ?? "", username, password, ...files }
}

/** The configuration that adds the three listeners to a node's plain ones. */
export const secured = (directory: string, plain: string, { sasl, saslTls, tls }: Security): Record<string, string> => {
  const extra = `SASL_PLAINTEXT://${sasl},SSL://${tls},SASL_SSL://${saslTls}`
  const store = join(directory, "certificates", "node-store.pem")
  const mechanisms = ["sasl_plaintext", "sasl_ssl"].flatMap((listener) => {
    const name = `listener.name.${listener}`
    const modules = "org.apache.kafka.common.security"
    return [
      [`${name}.plain.sasl.jaas.config`, `${modules}.plain.PlainLoginModule required user_${username}="${password}";`],
      [`${name}.scram-sha-256.sasl.jaas.config`, `${modules}.scram.ScramLoginModule required;`],
      [`${name}.scram-sha-512.sasl.jaas.config`, `${modules}.scram.ScramLoginModule required;`]
    ]
  })
  return {
    listeners: `${plain},${extra}`,
    "advertised.listeners": `${plain.split(",")[0]},${extra}`,
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    ...Object.fromEntries(mechanisms),
    "ssl.keystore.type": "PEM",
    "ssl.keystore.location": store,
    "ssl.truststore.type": "PEM",
    "ssl.truststore.location": join(directory, "certificates", "ca.pem"),
    "listener.name.ssl.ssl.client.auth": "required"
  }
}

/** Arguments of Kafka's storage tool: SCRAM users are part of a node's first state. */
export const users: ReadonlyArray<string> = ["SCRAM-SHA-256", "SCRAM-SHA-512"].flatMap((mechanism) => [
  "--add-scram",
  `${mechanism}=[name=${username},password=${password}]`
])

const openssl = (args: ReadonlyArray<string>): void => {
  try {
    execFileSync("openssl", args, { stdio: "pipe" })
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    const missing = "openssl is not installed, and it makes the certificates. try: apt-get install openssl"
    throw new StackError({ reason: "Missing", message: code === "ENOENT" ? missing : message, cause })
  }
}
