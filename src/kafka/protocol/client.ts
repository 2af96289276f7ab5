// The connections to a cluster, and who leads which partition. Every call has an end: what does not answer is given up and dialled anew.
import { unknownTopic } from "../../log/rules.ts"
import { Budget } from "./fetch-budget.ts"
import { abandon, type Broker, dialer } from "./kafkajs.ts"
import { KafkaFailure, typeOf } from "./errors.ts"
import { metadata } from "./metadata.ts"
import type { Options } from "./options.ts"

/** A topic as the cluster has it. */
export interface Topic {
  readonly name: string
  /** Of this topic and of no other that ever has its name; undefined where the brokers are too old to tell. */
  readonly id: string | undefined
  /** The leading broker's number, by partition; -1 while there is none. */
  readonly leaders: ReadonlyArray<number>
  /** Copies of each partition. */
  readonly replication: number
}
interface Node {
  readonly host: string
  readonly port: number
}
/** After that long what is known of a topic is asked again. */
const freshMs = 60_000
/** Connection errors and answers after which somebody else may lead. */
const moved =
  /^(NOT_LEADER_FOR_PARTITION|LEADER_NOT_AVAILABLE|FENCED_LEADER_EPOCH|UNKNOWN_LEADER_EPOCH|REPLICA_NOT_AVAILABLE|UNKNOWN_TOPIC_OR_PARTITION|UNKNOWN_TOPIC_ID|KAFKA_STORAGE_ERROR|OFFSET_NOT_AVAILABLE|GROUP_LOAD_IN_PROGRESS|GROUP_COORDINATOR_NOT_AVAILABLE|NOT_COORDINATOR_FOR_GROUP)$/

/** Whether the same request may succeed once metadata is asked for again. */
export const isMoved = (cause: unknown) => moved.test(typeOf(cause))

const addressOf = (text: string): Node => {
  const at = text.lastIndexOf(":")
  const port = Number(text.slice(at + 1))
  const host = text.slice(0, at).replace(/^\[(.*)\]$/, "$1")
  if (at > 0 && host !== "" && Number.isInteger(port) && port > 0 && port < 65_536) return { host, port }
  throw new KafkaFailure("", `'${text}' is no broker: write host:port into MILLRACE_KAFKA_BROKERS`, false)
}

/** Connections of one process to one cluster. */
export class Client {
  readonly requestMs: number
  readonly options: Options
  /** What its readers hold together. */
  readonly budget: Budget
  private readonly dial: ReturnType<typeof dialer>
  private readonly seeds: ReadonlyArray<Node>
  private readonly nodes = new Map<number, Node>()
  private readonly shared = new Map<string, Promise<Broker>>()
  private readonly topics = new Map<string, { readonly topic: Topic; readonly until: number }>()
  private readonly asking = new Map<string, Promise<Topic>>()
  private readonly all = new Set<Broker>()
  private closed = false

  constructor(options: Options) {
    this.options = options
    this.requestMs = options.requestMs ?? 20_000
    this.budget = new Budget(options.fetchBytes ?? 64 << 20)
    this.seeds = options.brokers.map(addressOf)
    if (this.seeds.length === 0) throw new KafkaFailure("", "no brokers are given: set MILLRACE_KAFKA_BROKERS", false)
    this.dial = dialer(options)
  }

  /** A connection that the caller must `drop`. */
  async connect({ host, port }: Node): Promise<Broker> {
    if (this.closed) throw new KafkaFailure("CLOSED", "the connections to Kafka were closed by this process", false)
    const broker = await this.dial(host, port)
    this.all.add(broker)
    try {
      await this.within(broker, broker.connect(), (this.options.connectMs ?? 5_000) * 3)
      if (this.closed) throw new KafkaFailure("CLOSED", "the connections to Kafka were closed by this process", false)
      return broker
    } catch (cause) {
      this.drop(broker)
      throw cause
    }
  }
  /** The same to a broker by its number. */
  async connectTo(node: number): Promise<Broker> {
    const address = this.nodes.get(node)
    if (address === undefined)
      throw new KafkaFailure("LEADER_NOT_AVAILABLE", `broker ${node} is not known (any more)`, true)
    return this.connect(address)
  }
  drop(broker: Broker): void {
    this.all.delete(broker)
    abandon(broker)
  }

  /** Waits for an answer; a connection that does not give one in time is dropped, and that rejects whatever else waits on it. */
  async within<A>(broker: Broker, answer: Promise<A>, ms = this.requestMs): Promise<A> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(
          new KafkaFailure(
            "HUNG",
            `the broker at ${broker.brokerAddress} did not answer within ${ms} ms; try again`,
            true
          )
        )
        this.drop(broker)
      }, ms)
    })
    try {
      return await Promise.race([answer, late])
    } finally {
      clearTimeout(timer)
    }
  }

  private share(key: string, connect: () => Promise<Broker>): Promise<Broker> {
    const there = this.shared.get(key)
    if (there !== undefined) return there
    const made = connect()
    this.shared.set(key, made)
    made.catch(() => this.shared.get(key) === made && this.shared.delete(key))
    return made
  }
  /** Runs a request over a connection that requests of the same purpose share. A lost one is dialled anew the next time. */
  async use<A>(node: number, purpose: string, run: (broker: Broker) => Promise<A>, ms?: number): Promise<A> {
    return this.over(`${purpose} ${node}`, () => this.connectTo(node), run, ms)
  }
  private async over<A>(key: string, connect: () => Promise<Broker>, run: (broker: Broker) => Promise<A>, ms?: number) {
    let made = this.share(key, connect)
    let broker = await made
    if (!broker.isConnected()) {
      if (this.shared.get(key) === made) this.shared.delete(key)
      this.drop(broker)
      made = this.share(key, connect)
      broker = await made
    }
    try {
      return await this.within(broker, run(broker), ms)
    } catch (cause) {
      if (!broker.isConnected() && this.shared.get(key) === made) this.shared.delete(key)
      throw cause
    }
  }

  /** Runs a request on any broker that answers; known ones first, for the seeds may be gone by now. */
  async any<A>(run: (broker: Broker) => Promise<A>): Promise<A> {
    const places = new Map([...this.nodes.values(), ...this.seeds].map((node) => [`${node.host}:${node.port}`, node]))
    let failure: unknown
    for (const [key, node] of places) {
      try {
        return await this.over(`any ${key}`, () => this.connect(node), run)
      } catch (cause) {
        failure = cause
        if (typeof (cause as { type?: unknown }).type === "string" && typeOf(cause) === "UNKNOWN_TOPIC_OR_PARTITION")
          break
      }
    }
    throw failure
  }

  private async ask(name: string): Promise<Topic> {
    const { brokers, id, leaders, replication } = await this.any((broker) => metadata(broker, name))
    for (const { host, nodeId, port } of brokers) this.nodes.set(nodeId, { host, port })
    return { name, id, leaders, replication }
  }
  /** A topic, from memory where it was asked for lately. Fails with `UnknownTopic` where there is none. */
  async topic(name: string): Promise<Topic> {
    const there = this.topics.get(name)
    if (there !== undefined && there.until > Date.now()) return there.topic
    const asking = this.asking.get(name)
    if (asking !== undefined) return asking
    const asked = this.ask(name).then(
      (topic) => {
        this.topics.set(name, { topic, until: Date.now() + freshMs })
        return topic
      },
      (cause: unknown) => {
        this.topics.delete(name)
        throw typeOf(cause) === "UNKNOWN_TOPIC_OR_PARTITION" || typeOf(cause) === "INVALID_TOPIC_EXCEPTION"
          ? unknownTopic(name)
          : cause
      }
    )
    this.asking.set(name, asked)
    void asked.catch(() => undefined).finally(() => this.asking.delete(name))
    return asked
  }
  /** Forgets what may have changed. */
  forget(name: string): void {
    this.topics.delete(name)
  }
  /** The broker that leads a partition now. */
  async leader(name: string, partition: number): Promise<number> {
    const { leaders } = await this.topic(name)
    const leader = leaders[partition] ?? -1
    if (leader >= 0) return leader
    this.forget(name)
    throw new KafkaFailure(
      "LEADER_NOT_AVAILABLE",
      `partition ${partition} has no leader: bring its brokers back, or try again`,
      true
    )
  }
  /** Learns the cluster, and that it can be used at all. */
  async hello(): Promise<void> {
    // asking for no topic would ask for all
    await this.any((broker) => broker.metadata(["__consumer_offsets"])).then(
      ({ brokers }) => brokers.forEach(({ host, nodeId, port }) => this.nodes.set(nodeId, { host, port })),
      (cause: unknown) => {
        // the answer is about that topic, which may just be made: the cluster is there, and the user is one of its
        if (!/^(UNKNOWN_TOPIC_OR_PARTITION|LEADER_NOT_AVAILABLE|TOPIC_AUTHORIZATION_FAILED)$/.test(typeOf(cause)))
          throw cause
      }
    )
  }
  /** Learns a broker that an answer names. */
  learn(node: number, host: string, port: number): void {
    this.nodes.set(node, { host, port })
  }
  close(): void {
    this.closed = true
    for (const broker of this.all) abandon(broker)
    this.all.clear()
  }
}

/** Runs something that may meet a moved leader or a lost connection, until it succeeds, or fails otherwise, or `ms` are over. */
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
/** Whether a connection was lost or not made: the request may have been served or not. */
export const isLost = (cause: unknown): boolean => {
  const { name } = cause as { readonly name?: string }
  const type = typeOf(cause)
  // what cannot become better by itself: no such host, no trust, no such user
  if (type === "CLOSED" || /^(ENOTFOUND|CERT_|SELF_SIGNED|UNABLE_TO_|DEPTH_|ERR_)/.test(type)) return false
  return type === "HUNG" || /^KafkaJS(Connection|RequestTimeout|LockTimeout|Timeout)/.test(name ?? "")
}
