// A topic: the name, key, time and shape of a partitioned log's values. It says what is in the log and reads none of it.
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import type { EventType } from "./event.ts"
import { millis, select, type Fields, type Named, type Select, type TypeOf } from "./fields.ts"
import { codec } from "./json-codec.ts"

/** Where events come from: a topic, or an aggregate's streams. */
export interface Source<out Ev, out Kind extends "topic" | "aggregate"> {
  readonly kind: Kind
  readonly name: string
  /** The event types told apart by `type`; none where values have one shape. */
  readonly types?: ReadonlyArray<string>
  readonly Event: Ev
}
/** What takes values of `V`. A topic whose values have fewer fields than `V` will do. */
export interface Sink<in V> {
  readonly name: string
  readonly keyOf: (value: V) => string
}
/** How a topic is made on Kafka, where the declaration alone does not say. Other logs pass it over. */
export interface KafkaTopic {
  /** Copies of each partition. Default: `MILLRACE_KAFKA_REPLICATION`, else the cluster's. A topic that is there keeps its number. */
  readonly replication?: number
  /** Copies that must have a record before its append is acknowledged. Default: `MILLRACE_KAFKA_MIN_ISR`, else the cluster's. */
  readonly minInSyncReplicas?: number
  /**
   * Topic settings by Kafka's names, as `{ "remote.storage.enable": "true", "local.retention.ms": "86400000" }` for tiered storage. What the
   * declaration says otherwise (`cleanup.policy`, `retention.ms`, `min.insync.replicas`) is not among them.
   */
  readonly settings?: Readonly<Record<string, string>>
}
/** Where relays bring derived topics: `kafka`, which is the log, and `pulsar`, whose consumers subscribe. */
export type Destination = "kafka" | "pulsar"
/** A partitioned log of values on Kafka (or on PostgreSQL, embedded). */
export interface Topic<out Name extends string, in out V> extends Source<V, "topic">, Sink<V> {
  readonly name: Name
  /** Undefined for a derived topic, which has as many as its projection's source. */
  readonly partitions: number | undefined
  /** How long records are kept, in milliseconds; undefined: for good. */
  readonly retentionMs: number | undefined
  /** The newest value of each key is kept, whatever its age. */
  readonly compacted?: boolean
  /** How the topic is made on Kafka. */
  readonly kafka?: KafkaTopic | undefined
  /** Where a derived topic goes; undefined: everywhere. */
  readonly to?: ReadonlyArray<Destination>
  /** An event type's versions, by type; where values have one shape there are none. */
  readonly eventTypes?: ReadonlyMap<string, EventType.Any>
  /** The fields that a value of one shape declares; undefined where values are of several shapes, or taken as they are. */
  readonly fields?: ReadonlyArray<string>
  readonly timeOf: ((value: V) => number) | undefined
  readonly idOf: ((value: V) => string) | undefined
  readonly tenantOf: ((value: V) => string) | undefined
  /** Reads a stored value of any version. Throws what says why it does not fit. */
  readonly decode: (json: unknown, version?: number) => V
  /** The JSON object of a value: declared fields only, whatever else the object has. */
  readonly encode: (value: V) => unknown
  /** The JSON text of what `encode` makes; undefined where it has none. */
  readonly stringify: (value: V) => string | undefined
  /** The schema's version that `encode` writes. */
  readonly versionOf: (value: V) => number
}
/** A topic that keeps the newest value of each key; null deletes. Projections look values up in it. */
export interface Compacted<out Name extends string, in out V> extends Topic<Name, V> {
  readonly compacted: true
}
export declare namespace Topic {
  type Any = Topic<string, any> // `any`: the value is invariant
  type Value<T> = T extends Topic<string, infer V> ? V : never
}

/** A value has an event type that its topic does not declare. */
export class UnknownEventType extends Schema.TaggedError<UnknownEventType>()("UnknownEventType", {
  topic: Schema.String,
  type: Schema.Unknown,
  known: Schema.Array(Schema.String)
}) {
  override get message() {
    return `${this.topic} has no event type ${JSON.stringify(this.type) ?? "undefined"}; it has ${this.known.join(", ")}`
  }
}

/** A name that a log will not take. */
export class InvalidTopicName extends Schema.TaggedError<InvalidTopicName>()("InvalidTopicName", {
  name: Schema.String
}) {
  override get message() {
    return `topic ${JSON.stringify(this.name)}: a topic's name has letters, digits, dots, _ and -, 249 at most`
  }
}

interface LogOptions<V> {
  /** Decides the partition (murmur2, as JVM clients do) and the order: events of one key are handled in order. */
  readonly key: Select<V, string>
  /** Epoch milliseconds; fractions are cut off. Without it the record's own timestamp, which for a derived topic is its event's time. */
  readonly eventTime?: Select<V, number>
  /** What makes a value the same one when it comes twice. */
  readonly id?: Select<V, string>
  /** Whose value it is. Travels in the envelope; deduplication keeps tenants apart. */
  readonly tenant?: Select<V, string>
  /** From 1. A derived topic has as many as its projection's source, unless it says otherwise. */
  readonly partitions?: number
  /** Records older than this may be deleted. Default: kept for good. */
  readonly retention?: Duration.Input
  /** How the topic is made on Kafka; other logs pass it over. */
  readonly kafka?: KafkaTopic
  /**
   * Where the topic goes that projections derive: both by default, Pulsar being there where `MILLRACE_PULSAR_URL` is set. What goes to Pulsar
   * alone no projection can read, and Kafka does not have. The log on PostgreSQL has every topic.
   */
  readonly to?: ReadonlyArray<Destination>
}

// what Kafka takes
const topicName = /^(?!\.\.?$)[a-zA-Z0-9._-]{1,249}$/
/** Whole milliseconds: times less than one apart would be told apart here, and not by PostgreSQL. */
const instant = (by: Select<any, number>) => {
  const timeOf = select(by as string) as (value: never) => number
  return (value: never) => Math.floor(timeOf(value))
}

const saidElsewhere: Readonly<Record<string, string>> = {
  "cleanup.policy": "Topic.compacted, or Topic.events and Topic.records",
  "retention.ms": "`retention`",
  "min.insync.replicas": "`kafka.minInSyncReplicas`"
}
const assertKafka = (name: string, { minInSyncReplicas, replication, settings = {} }: KafkaTopic) => {
  for (const [what, value] of Object.entries({ replication, minInSyncReplicas })) {
    if (value === undefined || (Number.isInteger(value) && value >= 1)) continue
    throw new Error(`topic ${name}: kafka.${what} is ${value}, it must be a whole number from 1`)
  }
  if (replication !== undefined && minInSyncReplicas !== undefined && minInSyncReplicas > replication)
    throw new Error(
      `topic ${name}: kafka.minInSyncReplicas is ${minInSyncReplicas}, and there are ${replication} copies`
    )
  for (const setting in settings) {
    const place = saidElsewhere[setting]
    if (place !== undefined) throw new Error(`topic ${name}: say ${setting} by ${place}, not in kafka.settings`)
  }
}

const topic = (name: string, options: LogOptions<any>, codec: object) => {
  if (!topicName.test(name)) throw new InvalidTopicName({ name })
  if (options.partitions !== undefined && !(Number.isInteger(options.partitions) && options.partitions >= 1)) {
    throw new Error(`topic ${name}: partitions is ${options.partitions}, it must be a whole number from 1`)
  }
  if (options.kafka !== undefined) assertKafka(name, options.kafka)
  if (options.to?.length === 0) throw new Error(`topic ${name}: \`to\` is empty; say "kafka", "pulsar" or both`)
  return {
    kind: "topic",
    name,
    partitions: options.partitions,
    retentionMs: options.retention === undefined ? undefined : millis(options.retention),
    ...(options.kafka !== undefined && { kafka: options.kafka }),
    ...(options.to !== undefined && { to: options.to }),
    keyOf: select(options.key as string),
    timeOf: options.eventTime && instant(options.eventTime),
    versionOf: () => 1,
    idOf: options.id && select(options.id as string),
    tenantOf: options.tenant && select(options.tenant as string),
    ...codec
  } as never // phantom `Event`
}
const recordCodec = (value: Fields) => ({ ...codec(value), fields: Object.keys(value) })

export const Topic = {
  /** Events of several types, told apart by `type`. */
  events: <const Name extends string, const E extends ReadonlyArray<EventType.Any>>(
    name: Name,
    options: { readonly events: E } & LogOptions<E[number]["Event"]>
  ): Topic<Name, E[number]["Event"]> => {
    const eventTypes = new Map<string, EventType.Any>(options.events.map((event) => [event.type, event]))
    const known = [...eventTypes.keys()]
    if (known.length === 0) throw new Error(`topic ${name} declares no event type; list at least one in \`events\``)
    if (known.length < options.events.length)
      throw new Error(`topic ${name} declares an event type twice: ${known.join(", ")}`)
    const find = (value: unknown) => {
      const type = (value as Partial<Named> | null | undefined)?.type
      const found = eventTypes.get(type as string)
      if (found === undefined) throw new UnknownEventType({ topic: name, type, known })
      return found
    }
    return topic(name, options, {
      types: known,
      eventTypes,
      decode: (json: unknown, version?: number) => find(json).decode(json, version),
      encode: (value: unknown) => find(value).encode(value as never),
      stringify: (value: unknown) => JSON.stringify(find(value).encode(value as never)),
      versionOf: (value: unknown) => find(value).versions.length
    })
  },
  /** Values of one shape. */
  records: <const Name extends string, F extends Fields>(
    name: Name,
    options: { readonly value: F } & LogOptions<TypeOf<F>>
  ): Topic<Name, TypeOf<F>> => topic(name, options, recordCodec(options.value)),
  /** Values of one shape, the newest of each key; null deletes. */
  compacted: <const Name extends string, F extends Fields>(
    name: Name,
    options: { readonly value: F } & LogOptions<TypeOf<F>>
  ): Compacted<Name, TypeOf<F>> => topic(name, options, { ...recordCodec(options.value), compacted: true }),
  /** A topic of values that are taken as they are: what a window with a topic name alone publishes. */
  plain: <const Name extends string, V>(name: Name, keyOf: (value: V) => string): Topic<Name, V> =>
    topic(name, { key: keyOf as never } as LogOptions<any>, {
      decode: (json: unknown) => json,
      encode: (value: unknown) => value,
      stringify: (value: unknown) => JSON.stringify(value)
    })
}
