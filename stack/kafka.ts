// Starts Kafka from jars on 127.0.0.1: one node that is broker and controller (KRaft), or a cluster of three.
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { KafkaJs } from "../src/kafka/protocol/kafkajs.ts"
import { StackError } from "./errors.ts"
import { jars, java, jvmFlags } from "./jars.ts"
import { copy, format, type Image, image, randomId, text } from "./kafka-image.ts"
import { secured, type Security, security, users } from "./kafka-security.ts"
import { freePorts, listening } from "./ports.ts"
import { run, type Running, sizeOf, tail } from "./process.ts"
import type { Local } from "./service.ts"

/** Options of a node. */
export interface KafkaOptions {
  /** The JVM's heap; default 512. */
  readonly heapMb?: number
  /** Broker properties that replace or add to the stack's own. */
  readonly properties?: Readonly<Record<string, string>>
  /** Adds listeners that require passwords and certificates (see `Security`). */
  readonly secure?: boolean
  /** The node's place in a cluster. Its storage is copied, not formatted by Kafka's tool. */
  readonly member?: Member
  readonly say?: (line: string) => void
}
/** A node of a cluster. */
export interface Member {
  /** From 1. */
  readonly id: number
  readonly cluster: string
  readonly port: number
  readonly controller: number
}
/** A running node, and its secured listeners if it has them. */
export interface KafkaNode extends Local {
  readonly security: Security | undefined
}

const patienceMs = 90_000

/** Starts a node with its files in `directory`, which must be empty; resolves when it answers. Rejects with a `StackError`. */
export const kafka = async (directory: string, options: KafkaOptions = {}): Promise<KafkaNode> => {
  const libraries = await jars("kafka", options.say)
  return node(directory, options, libraries, await image(libraries, rehearse))
}

/**
 * Starts a cluster of three nodes in `directory`, each a broker and a controller, with three copies of everything unless properties say
 * otherwise. It works with two of three nodes: a write is acknowledged when two have it. Resolves when all answer.
 */
export const kafkaCluster = async (
  directory: string,
  { properties, ...options }: Omit<KafkaOptions, "member" | "secure"> = {}
): Promise<ReadonlyArray<KafkaNode>> => {
  const libraries = await jars("kafka", options.say)
  const made = await image(libraries, rehearse)
  const ports = await freePorts(6)
  const cluster = randomId()
  const members = [1, 2, 3].map((id): Member => ({ id, cluster, port: ports[id - 1]!, controller: ports[id + 2]! }))
  const shared = {
    "controller.quorum.voters": members.map(({ controller, id }) => `${id}@127.0.0.1:${controller}`).join(),
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    // after so long the others go on without a killed node; three nodes on a busy machine are slower than one
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
    "replica.lag.time.max.ms": "6000",
    ...properties
  }
  const started = await Promise.allSettled(
    members.map((member) => {
      const own = { ...shared, "node.id": String(member.id) }
      return node(join(directory, String(member.id)), { ...options, member, properties: own }, libraries, made)
    })
  )
  const nodes = started.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []))
  const failure = started.find((one) => one.status === "rejected")
  if (failure === undefined) return nodes
  await Promise.all(nodes.map((one) => one.close()))
  throw failure.reason
}

/** Creates the image that nodes start from, if it is missing; otherwise the first start does so. */
export const kafkaImage = async (): Promise<void> => {
  await image(await jars("kafka"), rehearse)
}

const node = async (directory: string, options: KafkaOptions, libraries: string, { archive, template }: Image) => {
  mkdirSync(directory, { recursive: true })
  const { member } = options
  const [free = 0, freeToo = 0, ...others] = await freePorts(5)
  const { controller, port } = member ?? { port: free, controller: freeToo }
  const secure = options.secure === true ? security(directory, others) : undefined
  const config = join(directory, "server.properties")
  const log = join(directory, "kafka.log")
  const base = settings(directory, port, controller)
  const extra = secure === undefined ? {} : secured(directory, base["listeners"] ?? "", secure)
  const properties = { ...base, ...extra, ...options.properties }
  writeFileSync(config, text(properties))
  writeFileSync(join(directory, "log4j2.properties"), logging)
  const storage = properties["log.dirs"] ?? ""
  if (secure !== undefined) await format(directory, libraries, config, users)
  else if (template === undefined) await format(directory, libraries, config)
  else copy(template, storage, properties["node.id"], member?.cluster)
  const heap = options.heapMb ?? 512
  const jvm = ["-XX:MaxDirectMemorySize=256m", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"]
  const command = [java(), `-Xmx${heap}m`, `-Xms${Math.min(heap, 256)}m`, ...jvm, ...jvmFlags(), ...archive]
  command.push(`-Dlog4j2.configurationFile=${join(directory, "log4j2.properties")}`)
  command.push("-cp", join(libraries, "*"), "kafka.Kafka", config)
  let running: Running | undefined
  const start = async () => {
    if (running?.alive() === true) return
    const from = sizeOf(log)
    running = await run({ command, directory, log })
    await answers(running, port, log, from)
  }
  const end = (signal: NodeJS.Signals) => async () => running?.end(signal)
  try {
    await start()
  } catch (error) {
    await end("SIGKILL")()
    throw error
  }
  return {
    name: "kafka",
    from: "local",
    security: secure,
    endpoints: { MILLRACE_KAFKA_BROKERS: `127.0.0.1:${port}` },
    pid: () => (running?.alive() === true ? running.pid : undefined),
    kill: end("SIGKILL"),
    stop: end("SIGTERM"),
    start,
    close: end("SIGKILL")
  } satisfies KafkaNode
}

/** Starts and stops a first node, whose JVM writes an archive of its classes. Returns the folder of the formatted storage. */
const rehearse = async (directory: string, libraries: string, archive: string): Promise<string> => {
  const first = await node(directory, {}, libraries, {
    template: undefined,
    archive: [`-XX:ArchiveClassesAtExit=${archive}`]
  })
  await first.stop()
  return join(directory, "data")
}

/** Waits until the node answers a request about the cluster. */
const answers = async (running: Running, port: number, log: string, from: number): Promise<void> => {
  const deadline = Date.now() + patienceMs
  while (!(await listening(port))) {
    if (!running.alive() || Date.now() > deadline) throw failed(log, from, running.alive())
    await sleep(50)
  }
  const brokers = [`127.0.0.1:${port}`]
  const admin = new KafkaJs.Kafka({ brokers, logLevel: KafkaJs.logLevel.NOTHING, retry: { retries: 0 } }).admin()
  for (;;) {
    try {
      await admin.connect()
      const { brokers: known, controller } = await admin.describeCluster()
      if (known.length > 0 && controller !== null) return
    } catch (cause) {
      if (!running.alive() || Date.now() > deadline) throw failed(log, from, running.alive(), cause)
    } finally {
      await admin.disconnect().catch(() => undefined)
    }
    await sleep(50)
  }
}

const failed = (log: string, from: number, alive: boolean, cause?: unknown) =>
  new StackError({
    reason: "Start",
    message: `Kafka ${alive ? `did not answer in ${patienceMs / 1000} s` : "exited while it started"}: ${tail(log, from)}\ntry: the same again; the log is ${log}`,
    ...(cause === undefined ? {} : { cause })
  })

/** One node keeps one copy; waits that serve large clusters are left out. Topics are never created by themselves. */
const settings = (directory: string, port: number, controller: number): Record<string, string> => ({
  "process.roles": "broker,controller",
  "node.id": "1",
  "controller.quorum.voters": `1@127.0.0.1:${controller}`,
  listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controller}`,
  "advertised.listeners": `PLAINTEXT://127.0.0.1:${port}`,
  "controller.listener.names": "CONTROLLER",
  "inter.broker.listener.name": "PLAINTEXT",
  "listener.security.protocol.map":
    "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
  "log.dirs": join(directory, "data"),
  "auto.create.topics.enable": "false",
  // a killed node is admitted again when its last session has expired
  "broker.session.timeout.ms": "2000",
  "broker.heartbeat.interval.ms": "400",
  "num.network.threads": "2",
  "num.io.threads": "4",
  "offsets.topic.replication.factor": "1",
  "offsets.topic.num.partitions": "4",
  "transaction.state.log.replication.factor": "1",
  "transaction.state.log.min.isr": "1",
  "transaction.state.log.num.partitions": "4",
  "share.coordinator.state.topic.replication.factor": "1",
  "share.coordinator.state.topic.min.isr": "1",
  "group.initial.rebalance.delay.ms": "0",
  "group.min.session.timeout.ms": "1000",
  "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
  "log.retention.check.interval.ms": "5000",
  "log.cleaner.dedupe.buffer.size": "33554432",
  "log.cleaner.backoff.ms": "1000"
})

const logging = `status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
`
