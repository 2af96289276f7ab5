// A Kafka node with users and certificates: SASL over plain TCP, and TLS that asks for a client certificate. For the tests of signing in.
import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import { jars, java, jvmFlags } from "../../stack/jars.ts"
import { freePorts, listening } from "../../stack/ports.ts"
import { run as start } from "../../stack/process.ts"

const run = (directory: string, command: string, args: ReadonlyArray<string>) =>
  execFileSync(command, [...args], { cwd: directory, stdio: "pipe" })

/** An authority, and the node's and a client's certificate of it, as PEM. */
const certificates = (directory: string) => {
  const openssl = (...args: ReadonlyArray<string>) => run(directory, "openssl", args)
  const days = ["-days", "2"]
  const fresh = ["-newkey", "rsa:2048", "-nodes"]
  openssl("req", "-x509", ...fresh, ...days, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
  writeFileSync(join(directory, "san"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
  for (const who of ["node", "client"]) {
    openssl("req", ...fresh, "-subj", `/CN=${who}`, "-keyout", `${who}.key`, "-out", `${who}.csr`)
    const authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san"]
    openssl("x509", "-req", "-in", `${who}.csr`, ...authority, ...days, "-out", `${who}.pem`)
  }
  const text = (name: string) => readFileSync(join(directory, name), "utf8")
  writeFileSync(join(directory, "keystore.pem"), text("node.key") + text("node.pem"))
  return { ca: text("ca.pem"), cert: text("client.pem"), key: text("client.key") }
}

const plainLogin = (password: string) =>
  `org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="${password}" user_admin="${password}" user_user="${password}";`

/** A node for as long as the scope is open: `sasl` and `tls` listen there; every user's password is `password`. */
export const secured = Effect.fnUntraced(function* (password: string) {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-secured-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true, maxRetries: 5 }))
  )
  const tls = certificates(directory)
  const [sasl = 0, ssl = 0, controller = 0] = yield* Effect.promise(() => freePorts(3))
  const listeners = `SASL://127.0.0.1:${sasl},TLS://127.0.0.1:${ssl}`
  const data = join(directory, "data")
  mkdirSync(data)
  const properties = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.voters": `1@127.0.0.1:${controller}`,
    listeners: `${listeners},CONTROLLER://127.0.0.1:${controller}`,
    "advertised.listeners": listeners,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "TLS",
    "listener.security.protocol.map": "SASL:SASL_PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    "listener.name.sasl.plain.sasl.jaas.config": plainLogin(password),
    "listener.name.sasl.scram-sha-256.sasl.jaas.config":
      "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "listener.name.sasl.scram-sha-512.sasl.jaas.config":
      "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "ssl.client.auth": "required",
    "ssl.keystore.type": "PEM",
    "ssl.keystore.location": join(directory, "keystore.pem"),
    "ssl.truststore.type": "PEM",
    "ssl.truststore.location": join(directory, "ca.pem"),
    "log.dirs": data,
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "auto.create.topics.enable": "false"
  }
  const config = join(directory, "server.properties")
  writeFileSync(
    config,
    Object.entries(properties)
      .map(([name, value]) => `${name}=${value}\n`)
      .join("")
  )
  const classpath = join(yield* Effect.promise(() => jars("kafka")), "*")
  const scram = ["256", "512"].flatMap((bits) => ["--add-scram", `SCRAM-SHA-${bits}=[name=user,password=${password}]`])
  const id = "AAAAAAAAQACAAAAAAAAAAQ"
  run(directory, java(), ["-cp", classpath, "kafka.tools.StorageTool", "format", "-t", id, "-c", config, ...scram])
  const command = [java(), "-Xmx384m", ...jvmFlags(), "-cp", classpath, "kafka.Kafka", config]
  yield* Effect.acquireRelease(
    Effect.promise(() => start({ command, directory, log: join(directory, "kafka.log") })),
    (running) => Effect.promise(() => running.end("SIGKILL"))
  )
  const up = Effect.gen(function* () {
    for (const port of [sasl, ssl]) while (!(yield* Effect.promise(() => listening(port)))) yield* Effect.sleep(50)
  })
  yield* Effect.timeout(up, "60 seconds")
  return { sasl: `127.0.0.1:${sasl}`, tls: `127.0.0.1:${ssl}`, certificates: tls }
})
