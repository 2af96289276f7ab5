// Starts a standalone Pulsar from jars on 127.0.0.1: broker, bookie and metadata in one process.
import { mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { StackError } from "./errors.ts"
import { archived, archiveIn, image, imageIn } from "./image.ts"
import { jars, java, jvmFlags } from "./jars.ts"
import { type PulsarSecurity, security } from "./pulsar-security.ts"
import { freePorts } from "./ports.ts"
import { run, type Running, sizeOf, tail } from "./process.ts"
import type { Local } from "./service.ts"

/** Options of a broker. */
export interface PulsarOptions {
  /** The JVM's heap; default 768. Up to 512 MB of direct memory come on top. */
  readonly heapMb?: number
  /** Settings of standalone.conf that replace or add to the stack's own. */
  readonly properties?: Readonly<Record<string, string>>
  /** It asks who everyone is, by token or certificate, answers by TLS as well, and allows what was granted. */
  readonly secure?: boolean
  readonly say?: (line: string) => void
}

const patienceMs = 120_000
// creating a topic takes 1.5 s after a start, and ten times that on a machine with much else to do
const storageMs = 20_000
const startsAtMost = 4
// a JVM that writes its archive of classes when it stops takes half a minute for that
const rehearsalMs = 180_000

// What Pulsar's own launch script opens.
const opened = [
  ...["jdk.internal.loader", "java.lang", "java.io", "java.util.zip", "sun.net", "jdk.internal.platform"].map(
    (name) => `java.base/${name}`
  ),
  "java.management/sun.management",
  "jdk.management/com.sun.management.internal"
]

/** Starts a broker with its files in `directory`; resolves when it answers. Rejects with a `StackError`. */
export const pulsar = async (
  directory: string,
  options: PulsarOptions = {}
): Promise<Local & { readonly security: PulsarSecurity | undefined }> => {
  const libraries = await jars("pulsar", options.say)
  return standalone(directory, options, libraries, archived(imageIn(libraries)))
}

/** Creates the archive of classes that brokers start from, if it is missing: starts and stops a first one. Brokers start without it, too. */
export const pulsarImage = async (): Promise<void> => {
  const libraries = await jars("pulsar")
  await image(libraries, async (fresh) => {
    const directory = join(fresh, "broker")
    const writing = [`-XX:ArchiveClassesAtExit=${archiveIn(fresh)}`]
    const first = await standalone(directory, {}, libraries, writing, rehearsalMs)
    await first.stop()
    rmSync(directory, { recursive: true, force: true })
  })
}

const standalone = async (
  directory: string,
  options: PulsarOptions,
  libraries: string,
  archive: ReadonlyArray<string>,
  stopMs?: number
): Promise<Local & { readonly security: PulsarSecurity | undefined }> => {
  mkdirSync(directory, { recursive: true })
  const [broker = 0, web = 0, brokerTls = 0, webTls = 0] = await freePorts(4)
  const secure = options.secure === true ? security(directory, brokerTls, webTls) : undefined
  const config = join(directory, "standalone.conf")
  const log = join(directory, "pulsar.log")
  const properties = { ...settings(broker, web), ...secure?.properties, ...options.properties }
  const lines = Object.entries(properties).map(([name, value]) => `${name}=${value}\n`)
  writeFileSync(config, lines.join(""))
  writeFileSync(join(directory, "client.conf"), "")
  writeFileSync(join(directory, "log4j2.properties"), logging)
  const jvm = [`-Xmx${options.heapMb ?? 768}m`, "-XX:MaxDirectMemorySize=512m", "-XX:+ExitOnOutOfMemoryError"]
  const command = [
    java(),
    ...jvm,
    ...jvmFlags(),
    ...archive,
    "-Djava.awt.headless=true",
    "-Dio.netty.tryReflectionSetAccessible=true"
  ]
  command.push(`-Dlog4j2.configurationFile=${join(directory, "log4j2.properties")}`)
  command.push(...opened.flatMap((name) => ["--add-opens", `${name}=ALL-UNNAMED`]))
  // an archive belongs to the jars that a class path begins with
  command.push("-cp", `${join(libraries, "*")}:${directory}`, "org.apache.pulsar.PulsarStandaloneStarter")
  command.push("--config", config, "--bookkeeper-dir", join(directory, "bookkeeper"))
  command.push("--metadata-dir", join(directory, "metadata"), "-nfw", "-nss")
  let running: Running | undefined
  const start = async () => {
    if (running?.alive() === true) return
    const token = secure?.security.token("admin")
    const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
    const admin = `http://127.0.0.1:${web}/admin/v2`
    for (let starts = 1; ; starts++) {
      const from = sizeOf(log)
      running = await run({ command, directory, log })
      await answers(running, admin, headers, log, from)
      const problem = await storageProblem(admin, headers)
      if (problem === undefined) return
      await running.end("SIGKILL")
      if (starts === startsAtMost) throw failed(`stores nothing: ${problem}`, log)
    }
  }
  const end = (signal: NodeJS.Signals, waitMs?: number) => async () => running?.end(signal, waitMs)
  try {
    await start()
  } catch (error) {
    await end("SIGKILL")()
    throw error
  }
  return {
    name: "pulsar",
    from: "local",
    security: secure?.security,
    endpoints: {
      MILLRACE_PULSAR_URL: `pulsar://127.0.0.1:${broker}`,
      MILLRACE_PULSAR_ADMIN_URL: `http://127.0.0.1:${web}`
    },
    pid: () => (running?.alive() === true ? running.pid : undefined),
    kill: end("SIGKILL"),
    stop: end("SIGTERM", stopMs),
    start,
    close: end("SIGKILL")
  }
}

const failed = (what: string, log: string) =>
  new StackError({ reason: "Start", message: `Pulsar ${what}\ntry: the same again; the log is ${log}` })

/** Waits for the default namespace, which a standalone broker creates last. */
const answers = async (
  running: Running,
  admin: string,
  headers: Record<string, string>,
  log: string,
  from: number
): Promise<void> => {
  const deadline = Date.now() + patienceMs
  for (;;) {
    try {
      const response = await fetch(`${admin}/namespaces/public`, { signal: AbortSignal.timeout(5_000), headers })
      const body = await response.text()
      if (response.ok && body.includes("public/default")) return
    } catch {
      // it does not listen yet
    }
    if (!running.alive() || Date.now() > deadline) {
      const state = running.alive() ? `did not answer in ${patienceMs / 1000} s` : "exited while it started"
      throw failed(`${state}: ${tail(log, from)}`, log)
    }
    await sleep(50)
  }
}

/**
 * Why the broker cannot store a message; undefined if it can. After a kill -9 the bookie's registration is still there. The new process deletes and
 * creates it, and in some starts (2 of 14, Pulsar 4.0.7) its broker notes only that it is gone. It answers all the same, and stores nothing until it
 * is started again.
 */
const storageProblem = async (admin: string, headers: Record<string, string>): Promise<string | undefined> => {
  // a topic's creation stores a first entry
  const topic = `${admin}/persistent/public/default/stack-${process.pid}-${Date.now()}`
  const signal = AbortSignal.timeout(storageMs)
  let refusal: string | undefined
  try {
    for (;;) {
      const created = await fetch(topic, { method: "PUT", signal, headers })
      const text = await created.text()
      if (created.ok) break
      refusal = `HTTP ${created.status}: ${text}`
      if (created.status < 500) return refusal
      await sleep(200, undefined, { signal })
    }
    const deleted = await fetch(`${topic}?force=true`, { method: "DELETE", signal, headers })
    await deleted.text()
    return undefined
  } catch (error) {
    return refusal ?? (error as Error).message
  }
}

/** One node keeps one copy; deduplication is on, since exactly-once publishing rests on it. */
const settings = (broker: number, web: number): Record<string, string> => ({
  brokerServicePort: String(broker),
  webServicePort: String(web),
  bindAddress: "127.0.0.1",
  advertisedAddress: "127.0.0.1",
  clusterName: "standalone",
  managedLedgerDefaultEnsembleSize: "1",
  managedLedgerDefaultWriteQuorum: "1",
  managedLedgerDefaultAckQuorum: "1",
  managedLedgerCacheSizeMB: "64",
  webSocketServiceEnabled: "true",
  brokerDeduplicationEnabled: "true",
  loadBalancerEnabled: "false",
  allowAutoTopicCreation: "true",
  // otherwise a whole batch is redelivered while one message of it is not acknowledged
  acknowledgmentAtBatchIndexLevelEnabled: "true"
})

const logging = `status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
`
