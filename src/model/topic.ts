// Topics as users declare them: name, key, event time and the shape of values, with the codec of their JSON. Pure.
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import type { EventType } from "./event.ts"
import { assertFields, assertOptions, assertSelected, type ValueShape } from "./declaration.ts"
import { remember, select, type Fields, type Named, type Select, type TypeOf } from "./fields.ts"
import { codec } from "./json-codec.ts"
import { checkedCount, checkedDuration } from "./options.ts"

/** A source of events: a topic, or an aggregate. */
export interface Source<out Ev, out Kind extends "topic" | "aggregate"> {
  /** Whether the source is a topic or an aggregate. */
  readonly kind: Kind
  /** The name of the topic or aggregate. */
  readonly name: string
  /** The names of the event types, which values have as `type`; undefined if all values have one shape. */
  readonly types?: ReadonlyArray<string>
  /** The type of an event, for `typeof`: there is no such value. */
  readonly Event: Ev
}
/** Something that accepts values of `V`, such as a topic whose values have fewer fields than `V`. */
export interface Sink<in V> {
  /** The name of the topic. */
  readonly name: string
  /** The key of a value, by which the topic is partitioned. */
  readonly keyOf: (value: V) => string
}
/** Settings for creating a topic on Kafka. Other logs ignore them. */
export interface KafkaTopic {
  /** Replicas of each partition. Default: `MILLRACE_KAFKA_REPLICATION`, else the cluster's. An existing topic keeps its number. */
  readonly replication?: number
  /** Replicas that must store a record before its append is acknowledged. Default: `MILLRACE_KAFKA_MIN_ISR`, else the cluster's. */
  readonly minInSyncReplicas?: number
  /**
   * Topic settings by Kafka's names, as `{ "remote.storage.enable": "true", "local.retention.ms": "86400000" }` for tiered storage. Settings
   * that the declaration expresses (`cleanup.policy`, `retention.ms`, `min.insync.replicas`) are refused here.
   */
  readonly settings?: Readonly<Record<string, string>>
}
/** Where a derived topic is published: `kafka` (the log), or `pulsar` (for subscriptions). */
export type Destination = "kafka" | "pulsar"
/** A source whose records a log has, with the codec of their values: a topic, or an aggregate. */
export interface StoredSource<out Name extends string, in out V, out Kind extends "topic" | "aggregate">
  extends Source<V, Kind>, Sink<V> {
  /** The name of the topic or aggregate. */
  readonly name: Name
  /** Undefined for a derived topic that has as many as its projection's source. */
  readonly partitions: number | undefined
  /** How long records are kept, in milliseconds; undefined: forever. */
  readonly retentionMs: number | undefined
  /** The event types by name; undefined if all values have one shape. */
  readonly eventTypes?: ReadonlyMap<string, EventType.Any>
  /** The field that is the key; undefined if a function computes it. */
  readonly keyField?: string | undefined
  /** The fields of each kind of values; undefined if they are not decoded. */
  readonly shapes?: ReadonlyArray<ValueShape>
  /** The event time of a value, in epoch milliseconds; undefined: the record's timestamp. */
  readonly timeOf: ((value: V) => number) | undefined
  /** The id of a value, by which duplicates are recognised; undefined if none is declared. */
  readonly idOf: ((value: V) => string) | undefined
  /** The tenant of a value; undefined if none is declared. */
  readonly tenantOf: ((value: V) => string) | undefined
  /** Decodes a stored value of any version. Throws an error that says why it does not fit. */
  readonly decode: (json: unknown, version?: number) => V
  /** The JSON object of a value: the declared fields, no others. */
  readonly encode: (value: V) => unknown
  /** The JSON text of what `encode` returns; undefined if it has none. */
  readonly stringify: (value: V) => string | undefined
  /** The same text if it is one object of plain values in ASCII without escapes. Undefined says nothing. */
  readonly plainText?: (value: V) => string | undefined
  /** Whether `stringify` certainly has a text for a value, in one object whose texts every store can hold. Undefined: not known without the text. */
  readonly isPlain?: (value: V) => boolean
  /** The schema's version that `encode` writes. */
  readonly versionOf: (value: V) => number
}
/** A partitioned log of values on Kafka (or on PostgreSQL, embedded). */
export interface Topic<out Name extends string, in out V> extends StoredSource<Name, V, "topic"> {
  /** The log keeps the newest value of each key, of any age. */
  readonly compacted?: boolean
  /** Settings for Kafka. */
  readonly kafka?: KafkaTopic | undefined
  /** Where a derived topic is published; undefined: everywhere. */
  readonly to?: ReadonlyArray<Destination>
  /** The declared fields, if all values have one shape; undefined if they have several, or are not decoded. */
  readonly fields?: ReadonlyArray<string>
}
/** A topic that keeps the newest value of each key; null deletes a key. Projections use it for lookups. */
export interface Compacted<out Name extends string, in out V> extends Topic<Name, V> {
  readonly compacted: true
}
export declare namespace Topic {
  /** Any topic. */
  type Any = Topic<string, any> // `any`: the value is invariant
  /** The values of a topic. */
  type Value<T> = T extends Topic<string, infer V> ? V : never
}

/** The `type` of a value is no event type of its topic. */
export class UnknownEventType extends Schema.TaggedError<UnknownEventType>()("UnknownEventType", {
  topic: Schema.String,
  type: Schema.Unknown,
  known: Schema.Array(Schema.String)
}) {
  override get message() {
    return `topic ${this.topic} has no event type ${JSON.stringify(this.type) ?? "undefined"}; it has ${this.known.join(", ")}`
  }
}

/** A topic's name that the log does not accept. */
export class InvalidTopicName extends Schema.TaggedError<InvalidTopicName>()("InvalidTopicName", {
  name: Schema.String
}) {
  override get message() {
    return `topic ${JSON.stringify(this.name)}: the name is not allowed; use at most 249 letters, digits, dots, _ and -`
  }
}

/** The options that all topics have. `V`: the type of their values. */
export interface LogOptions<V> {
  /** The key of a value. It decides the partition (murmur2, as in JVM clients); events of one key are processed in order. */
  readonly key: Select<V, string>
  /**
   * The event time of a value: epoch milliseconds, rounded down. Default: the record's timestamp, which in a derived topic is the time of the
   * event that it was derived from.
   */
  readonly eventTime?: Select<V, number>
  /** The id of a value, by which duplicates are recognised. */
  readonly id?: Select<V, string>
  /** The tenant of a value. It is part of the record's envelope; ids of different tenants are never duplicates. */
  readonly tenant?: Select<V, string>
  /** At least 1. Default: a derived topic has as many as its projection's source, others have 1. */
  readonly partitions?: number
  /** Records older than this may be deleted. Default, and with `"Infinity"`: they are kept forever. */
  readonly retention?: Duration.Input
  /** Settings for Kafka; other logs ignore them. */
  readonly kafka?: KafkaTopic
  /**
   * Where a derived topic is published. Default: to Kafka, and to Pulsar if `MILLRACE_PULSAR_URL` is set. Projections cannot read a topic that
   * is published to Pulsar only. The log on PostgreSQL has every topic.
   */
  readonly to?: ReadonlyArray<Destination>
}

/** Whether Kafka accepts a topic's name. */
export const isTopicName = (name: unknown): boolean =>
  typeof name === "string" && /^(?!\.\.?$)[a-zA-Z0-9._-]{1,249}$/.test(name)
/** The event time in whole milliseconds, because times with fractions would differ here and be equal in PostgreSQL. */
export const instant = (what: string, by: Select<any, number>) => {
  const timeOf = select(what, by as string) as (value: never) => number
  return remember((value: never) => Math.floor(timeOf(value)), by)
}

const declaredElsewhere: Readonly<Record<string, string>> = {
  "cleanup.policy": "Topic.compacted, or Topic.events and Topic.records",
  "retention.ms": "`retention`",
  "min.insync.replicas": "`kafka.minInSyncReplicas`"
}
const assertKafka = (name: string, { minInSyncReplicas, replication, settings = {} }: KafkaTopic) => {
  for (const [what, value] of Object.entries({ replication, minInSyncReplicas })) {
    if (value !== undefined) checkedCount(`topic ${name}: kafka.${what}`, value, { least: 1 })
  }
  if (replication !== undefined && minInSyncReplicas !== undefined && minInSyncReplicas > replication)
    throw new Error(
      `topic ${name}: kafka.minInSyncReplicas is ${minInSyncReplicas}, more than kafka.replication (${replication}); lower one or raise the other`
    )
  for (const setting in settings) {
    const option = declaredElsewhere[setting]
    if (option !== undefined)
      throw new Error(`topic ${name}: kafka.settings has ${setting}; remove it and use ${option} instead`)
  }
}

const retentionOf = (name: string, retention: Duration.Input | undefined): number | undefined => {
  if (retention === undefined) return undefined
  const ms = checkedDuration(`topic ${name}: retention`, retention, { least: 1, orInfinite: true })
  return ms === Infinity ? undefined : ms
}

const logOptions = ["key", "eventTime", "id", "tenant", "partitions", "retention", "kafka", "to"]
const assertTopic = (name: string, options: LogOptions<any>, own: string, shapes: ReadonlyArray<ValueShape>) => {
  assertOptions(`topic ${name}`, options, [...logOptions, own], ["key", own])
  for (const what of ["key", "id", "tenant"] as const)
    assertSelected(`topic ${name}: \`${what}\``, options[what], shapes, "text")
  assertSelected(`topic ${name}: \`eventTime\``, options.eventTime, shapes, "number")
}
const topic = (name: string, options: LogOptions<any>, codec: object) => {
  if (!isTopicName(name)) throw new InvalidTopicName({ name })
  if (options.partitions !== undefined) checkedCount(`topic ${name}: partitions`, options.partitions, { least: 1 })
  if (options.kafka !== undefined) assertKafka(name, options.kafka)
  if (options.to?.length === 0) throw new Error(`topic ${name}: \`to\` is empty; list "kafka", "pulsar" or both`)
  return {
    kind: "topic",
    name,
    partitions: options.partitions,
    retentionMs: retentionOf(name, options.retention),
    ...(options.kafka !== undefined && { kafka: options.kafka }),
    ...(options.to !== undefined && { to: options.to }),
    ...(typeof options.key === "string" && { keyField: options.key as string }),
    keyOf: select(`topic ${name}: \`key\``, options.key as string),
    timeOf: options.eventTime && instant(`topic ${name}: \`eventTime\``, options.eventTime),
    versionOf: () => 1,
    idOf: options.id && select(`topic ${name}: \`id\``, options.id as string),
    tenantOf: options.tenant && select(`topic ${name}: \`tenant\``, options.tenant as string),
    ...codec
  } as never // phantom `Event`
}
const recordTopic = (name: string, options: LogOptions<any> & { readonly value: Fields }) => {
  assertOptions(`topic ${name}`, options, [...logOptions, "value"], ["value"])
  assertFields(`topic ${name}: \`value\``, options.value)
  const shapes = [{ name: "the value", fields: options.value }]
  assertTopic(name, options, "value", shapes)
  return { ...codec(options.value), fields: Object.keys(options.value), shapes }
}

/**
 * The codec of events that have one of several types, named by their `type`. `what` names the declaration in errors. Throws if there is no
 * event type, or one twice.
 */
export const eventCodec = (what: string, topic: string, events: ReadonlyArray<EventType.Any>) => {
  const eventTypes = new Map<string, EventType.Any>(events.map((event) => [event.type, event]))
  const known = [...eventTypes.keys()]
  if (known.length === 0) throw new Error(`${what} declares no event type; list at least one in \`events\``)
  if (known.length < events.length) throw new Error(`${what} declares an event type twice: ${known.join(", ")}`)
  const find = (value: unknown) => {
    const type = (value as Partial<Named> | null | undefined)?.type
    const found = eventTypes.get(type as string)
    if (found === undefined) throw new UnknownEventType({ topic, type, known })
    return found
  }
  return {
    types: known,
    eventTypes,
    shapes: events.map(({ type, versions }): ValueShape => ({
      name: `event type ${type}`,
      fields: { type: Schema.String, ...versions.at(-1)!.fields }
    })),
    decode: (json: unknown, version?: number) => find(json).decode(json, version),
    encode: (value: unknown) => find(value).encode(value as never),
    stringify: (value: unknown) => JSON.stringify(find(value).encode(value as never)),
    versionOf: (value: unknown) => find(value).versions.length
  }
}

/** Declares topics. */
export const Topic = {
  /**
   * Declares a topic of events, whose `type` names their event type. Throws if a name is not allowed or an event type is declared twice.
   *
   * ```ts
   * const Flights = Topic.events("flights.v1", { events: [Departed, Landed], key: "flight", eventTime: "at" })
   * ```
   */
  events: <const Name extends string, const E extends ReadonlyArray<EventType.Any>>(
    name: Name,
    options: {
      /** The event types, as `Event.make` declares them. */
      readonly events: E
    } & LogOptions<E[number]["Event"]>
  ): Topic<Name, E[number]["Event"]> => {
    assertOptions(`topic ${name}`, options, [...logOptions, "events"], ["events"])
    const codec = eventCodec(`topic ${name}`, name, options.events)
    assertTopic(name, options, "events", codec.shapes)
    return topic(name, options, codec)
  },
  /**
   * Declares a topic whose values all have one shape.
   *
   * ```ts
   * const Readings = Topic.records("readings.v1", {
   *   value: { sensor: Schema.String, celsius: Schema.Finite, at: Schema.Int }, key: "sensor", eventTime: "at"
   * })
   * ```
   */
  records: <const Name extends string, F extends Fields>(
    name: Name,
    options: {
      /** The fields of a value: names with schemas. */
      readonly value: F
    } & LogOptions<TypeOf<F>>
  ): Topic<Name, TypeOf<F>> => topic(name, options, recordTopic(name, options)),
  /**
   * Declares a compacted topic: values of one shape, of which the log keeps the newest for each key. Null deletes a key. Projections use it
   * for lookups.
   *
   * ```ts
   * const Planes = Topic.compacted("planes.v1", { value: { plane: Schema.String, seats: Schema.Int }, key: "plane" })
   * const seats = Projection.make({
   *   name: "seats", version: 1, source: Flights, writes: [Departures],
   *   enrich: { plane: { topic: Planes, by: "flight" } },
   *   handle: ({ at, flight }, out, { plane }) => {
   *     if ((plane?.seats ?? 0) > 100) out.upsert(Departures, { flight, at })
   *   }
   * })
   * ```
   */
  compacted: <const Name extends string, F extends Fields>(
    name: Name,
    options: {
      /** The fields of a value: names with schemas. */
      readonly value: F
    } & LogOptions<TypeOf<F>>
  ): Compacted<Name, TypeOf<F>> => topic(name, options, { ...recordTopic(name, options), compacted: true }),
  /** A topic whose values are neither checked nor changed. Windows that `publish` to a name use it. */
  plain: <const Name extends string, V>(name: Name, keyOf: (value: V) => string): Topic<Name, V> =>
    topic(name, { key: keyOf as never } as LogOptions<any>, {
      decode: (json: unknown) => json,
      encode: (value: unknown) => value,
      stringify: (value: unknown) => JSON.stringify(value)
    })
}
