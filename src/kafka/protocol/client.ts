// The connections to a cluster, and which broker leads which partition. Every call ends: a connection that does not answer in time is dropped,
// and the next call opens another. Rejects with `KafkaFailure` only.
import { failureOf, KafkaFailure } from "./errors.ts"
import { abandon, type Broker, dialer } from "./kafkajs.ts"
import { metadata } from "./metadata.ts"
import type { KafkaOptions } from "./options.ts"

/** A topic as the cluster has it. */
export interface ClusterTopic {
  readonly name: string
  /** The topic's id, which no other topic of this name ever has; undefined if the brokers are too old to have ids. */
  readonly id: string | undefined
  /** The number of the leading broker, by partition; -1 while a partition has no leader. */
  readonly leaders: ReadonlyArray<number>
  /** Copies of each partition. */
  readonly replication: number
}
/** Where a broker listens. */
interface Address {
  readonly host: string
  readonly port: number
}
/** How long metadata of a topic is used before it is asked for again. */
const freshMs = 60_000
/** Whether the same request may succeed once metadata is asked for again. */
export const isMoved = (cause: unknown): boolean => failureOf(cause).kind === "moved"
/** Whether a connection was lost or not made: the request may have been served or not. */
export const isLost = (cause: unknown): boolean => failureOf(cause).kind === "lost"

const addressOf = (text: string): Address => {
  const at = text.lastIndexOf(":")
  const port = Number(text.slice(at + 1))
  const host = text.slice(0, at).replace(/^\[(.*)\]$/, "$1")
  if (at > 0 && host !== "" && Number.isInteger(port) && port > 0 && port < 65_536) return { host, port }
  throw new KafkaFailure(
    "configuration",
    `'${text}' is not a broker's address: write host:port into MILLRACE_KAFKA_BROKERS`
  )
}

const closed = () =>
  new KafkaFailure("closed", "the connections to Kafka were closed by this process", { code: "CLOSED" })

/** Connections of one process to one cluster. Every method rejects with `KafkaFailure`. */
export class Client {
  readonly requestMs: number
  readonly options: KafkaOptions
  private readonly dial: ReturnType<typeof dialer>
  private readonly seeds: ReadonlyArray<Address>
  private readonly nodes = new Map<number, Address>()
  private readonly shared = new Map<string, Promise<Broker>>()
  private readonly topics = new Map<string, { readonly topic: ClusterTopic; readonly until: number }>()
  private readonly asking = new Map<string, Promise<ClusterTopic>>()
  private readonly all = new Set<Broker>()
  private closed = false

  constructor(options: KafkaOptions) {
    this.options = options
    this.requestMs = options.requestMs ?? 20_000
    this.seeds = options.brokers.map(addressOf)
    if (this.seeds.length === 0)
      throw new KafkaFailure("configuration", "no brokers are configured: set MILLRACE_KAFKA_BROKERS")
    this.dial = dialer(options)
  }

  /** Opens a connection, which the caller must `drop`. */
  async connect({ host, port }: Address): Promise<Broker> {
    if (this.closed) throw closed()
    const broker = await this.dial(host, port).catch((cause: unknown) => {
      throw failureOf(cause)
    })
    this.all.add(broker)
    try {
      await this.within(broker, broker.connect(), (this.options.connectMs ?? 5_000) * 3)
      if (this.closed) throw closed()
      return broker
    } catch (cause) {
      this.drop(broker)
      throw cause
    }
  }
  /** Opens a connection to a broker by its number; the caller must `drop` it. */
  async connectTo(node: number): Promise<Broker> {
    const address = this.nodes.get(node)
    if (address !== undefined) return this.connect(address)
    throw new KafkaFailure("moved", `broker ${node} is not known (any more)`, { code: "LEADER_NOT_AVAILABLE" })
  }
  /** Closes a connection at once. */
  drop(broker: Broker): void {
    this.all.delete(broker)
    abandon(broker)
  }

  /** Waits for an answer. A connection that does not answer in time is dropped, which rejects whatever else waits on it. */
  async within<A>(broker: Broker, answer: Promise<A>, ms = this.requestMs): Promise<A> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(
          new KafkaFailure("lost", `the broker at ${broker.brokerAddress} did not answer within ${ms} ms; try again`, {
            code: "HUNG"
          })
        )
        this.drop(broker)
      }, ms)
    })
    try {
      return await Promise.race([answer, late])
    } catch (cause) {
      throw failureOf(cause)
    } finally {
      clearTimeout(timer)
    }
  }

  private share(key: string, connect: () => Promise<Broker>): Promise<Broker> {
    const existing = this.shared.get(key)
    if (existing !== undefined) return existing
    const opened = connect()
    this.shared.set(key, opened)
    opened.catch(() => this.shared.get(key) === opened && this.shared.delete(key))
    return opened
  }
  /** Runs a request over a connection that requests of the same purpose share. After a lost one the next request opens another. */
  async use<A>(node: number, purpose: string, run: (broker: Broker) => Promise<A>, ms?: number): Promise<A> {
    return this.over(`${purpose} ${node}`, () => this.connectTo(node), run, ms)
  }
  private async over<A>(key: string, connect: () => Promise<Broker>, run: (broker: Broker) => Promise<A>, ms?: number) {
    let opened = this.share(key, connect)
    let broker = await opened
    if (!broker.isConnected()) {
      if (this.shared.get(key) === opened) this.shared.delete(key)
      this.drop(broker)
      opened = this.share(key, connect)
      broker = await opened
    }
    try {
      return await this.within(broker, run(broker), ms)
    } catch (cause) {
      if (!broker.isConnected() && this.shared.get(key) === opened) this.shared.delete(key)
      throw cause
    }
  }

  /** Runs a request on any broker that answers; known ones first, because the configured ones may be gone by now. */
  async any<A>(run: (broker: Broker) => Promise<A>): Promise<A> {
    const addresses = new Map(
      [...this.nodes.values(), ...this.seeds].map((node) => [`${node.host}:${node.port}`, node])
    )
    let failure: unknown
    for (const [key, node] of addresses) {
      try {
        return await this.over(`any ${key}`, () => this.connect(node), run)
      } catch (cause) {
        failure = cause
        // the cluster has answered
        if (failureOf(cause).code === "UNKNOWN_TOPIC_OR_PARTITION") break
      }
    }
    throw failure
  }

  private async ask(name: string): Promise<ClusterTopic> {
    const { brokers, id, leaders, replication } = await this.any((broker) => metadata(broker, name))
    for (const { host, nodeId, port } of brokers) this.nodes.set(nodeId, { host, port })
    return { name, id, leaders, replication }
  }
  /** A topic, from memory if it was asked for lately. Rejects with the kind `unknownTopic` if the cluster has none of this name. */
  async topic(name: string): Promise<ClusterTopic> {
    const known = this.topics.get(name)
    if (known !== undefined && known.until > Date.now()) return known.topic
    const asking = this.asking.get(name)
    if (asking !== undefined) return asking
    const asked = this.ask(name).then(
      (topic) => {
        this.topics.set(name, { topic, until: Date.now() + freshMs })
        return topic
      },
      (cause: unknown) => {
        this.topics.delete(name)
        const { code } = failureOf(cause)
        if (code !== "UNKNOWN_TOPIC_OR_PARTITION" && code !== "INVALID_TOPIC_EXCEPTION") throw cause
        throw new KafkaFailure(
          "unknownTopic",
          `the topic does not exist on Kafka: declare ${name} in an application and run 'millrace topics apply'`,
          { code, cause }
        )
      }
    )
    this.asking.set(name, asked)
    void asked.catch(() => undefined).finally(() => this.asking.delete(name))
    return asked
  }
  /** Forgets a topic, which may have changed. */
  forget(name: string): void {
    this.topics.delete(name)
  }
  /** The number of the broker that leads a partition now. */
  async leader(name: string, partition: number): Promise<number> {
    const { leaders } = await this.topic(name)
    const leader = leaders[partition] ?? -1
    if (leader >= 0) return leader
    this.forget(name)
    const reason = `partition ${partition} has no leader: bring its brokers back, or try again`
    throw new KafkaFailure("moved", reason, { code: "LEADER_NOT_AVAILABLE" })
  }
  /** Asks for the cluster's brokers. Rejects if no broker answers or the user is refused. */
  async hello(): Promise<void> {
    // asking for no topic would ask for all
    await this.any((broker) => broker.metadata(["__consumer_offsets"])).then(
      ({ brokers }) => brokers.forEach(({ host, nodeId, port }) => this.nodes.set(nodeId, { host, port })),
      (cause: unknown) => {
        // an answer about this topic, which may not exist yet: the cluster answers, and the user is let in
        const aboutTopic = /^(UNKNOWN_TOPIC_OR_PARTITION|LEADER_NOT_AVAILABLE|TOPIC_AUTHORIZATION_FAILED)$/
        if (!aboutTopic.test(failureOf(cause).code)) throw cause
      }
    )
  }
  /** Remembers the address of a broker that an answer names. */
  learn(node: number, host: string, port: number): void {
    this.nodes.set(node, { host, port })
  }
  /** Closes every connection at once; what waits on one is rejected. */
  close(): void {
    this.closed = true
    for (const broker of this.all) abandon(broker)
    this.all.clear()
  }
}

/** Repeats a call that may meet a moved leader or a lost connection, until it succeeds, fails for another reason, or `ms` are over. */
export const retrying = async <A>(client: Client, topic: string, ms: number, run: () => Promise<A>): Promise<A> => {
  const until = Date.now() + ms
  for (let pause = 10; ; pause = Math.min(pause * 2, 500)) {
    try {
      return await run()
    } catch (cause) {
      const retriable = isMoved(cause) || isLost(cause)
      if (!retriable || Date.now() + pause > until) throw cause
      client.forget(topic)
      await new Promise((resolve) => setTimeout(resolve, pause))
    }
  }
}
