// Converts segments of the outbox into messages for Pulsar: topic, key, payload, properties. Pure.
import { addEnvelope, envelopeHeaders, streamHeaders } from "../../log/envelope.ts"
import { timeHeader } from "../../log/time-mark.ts"
import type { Segment } from "../../relay/outbox.ts"
import { isStorable, shown } from "../../text/text.ts"
import { topicName } from "../client/topic-names.ts"

/** A message of a stream, ready to be sent to Pulsar. */
export interface RelayMessage {
  readonly seq: number
  readonly incarnation: string
  /** The full name, `persistent://TENANT/NAMESPACE/TOPIC`, without a partition. */
  readonly topic: string
  readonly key: string
  /** The record's JSON; empty for a deletion. */
  readonly value: string
  /** Epoch milliseconds. */
  readonly eventTime: number
  /** Without `sentProperty`, which is added when the message is sent. */
  readonly properties: Record<string, string>
  /** The message's entry in the segment's `meta`. */
  readonly meta: MessageMeta
  readonly headers: MessageMeta[6]
  /** Why the message can never be sent: its topic cannot exist, or Pulsar cannot hold one of its texts. Undefined if it can. */
  readonly refusal?: string | undefined
}
/** How records and topics are mapped to topics of Pulsar. */
export interface TopicMapping {
  /** The tenant of records that have none. */
  readonly tenant: string | undefined
  readonly namespace: string | undefined
  /** Chooses a topic by a record's value, for topics that are divided by it. Undefined if no topic is. */
  readonly topicFor: ((topic: string, value: string) => string) | undefined
}
/** Everything in a segment about one message except its value. */
type MessageMeta = readonly [
  key: string | null,
  eventTime: number,
  eventId?: string | null,
  tenant?: string | null,
  traceparent?: string | null,
  schemaVersion?: number | null,
  headers?: Readonly<Record<string, string>> | number | null
]

/** The property with a message's sequence id, as its producer counts: see `TopicPosition.sent`. */
export const sentProperty = "millrace-sent"
/** The properties that the relay sets. Headers of a record with such a name are left out. */
const reserved = new Set<string>([
  envelopeHeaders.traceId,
  envelopeHeaders.traceparent,
  envelopeHeaders.eventId,
  envelopeHeaders.tenant,
  envelopeHeaders.schemaVersion,
  ...Object.values(streamHeaders),
  sentProperty
])

const propertiesOf = (stream: string, incarnation: string, seq: number, meta: MessageMeta, headers: MessageMeta[6]) => {
  const [, , eventId, tenant, traceparent, schemaVersion] = meta
  const properties: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers ?? {})) if (!reserved.has(name)) properties[name] = value
  addEnvelope(properties, { eventId, tenant, traceparent, schemaVersion })
  properties[streamHeaders.stream] = stream
  properties[streamHeaders.sequence] = String(seq)
  properties[streamHeaders.incarnation] = incarnation
  return properties
}

// the broker would read `a/b` as tenant and cluster, and create the topic there, even if there is no such tenant
const tenantName = /^(?!\.+$)[\w.=:-]{1,256}$/
/** Why the broker or its clients cannot take a message as it is; undefined if they can. The one place that judges texts on their way to Pulsar. */
const refusalOf = (tenant: string, key: string, properties: Readonly<Record<string, string>>): string | undefined => {
  if (tenant !== "" && !tenantName.test(tenant))
    return `Pulsar cannot have a tenant named ${shown(tenant)}: names of tenants have at most 256 letters, digits and _ . = : - only`
  // the client cuts texts off at NUL, and others would replace what is not UTF-8
  const problem = (what: string, text: unknown) =>
    typeof text === "string" && isStorable(text)
      ? undefined
      : `Pulsar cannot take the message's ${what}, ${shown(text)}: it must be text in UTF-8 without NUL`
  for (const name in properties) {
    const found = problem("property name", name) ?? problem(`property ${name}`, properties[name])
    if (found !== undefined) return found
  }
  return problem("key", key)
}
/** The last moment that a JavaScript date can be, which the WebSocket interface writes as a date. */
const lastDate = 8.64e15
/** An event time as Pulsar can hold it, in whole milliseconds after 1970; 0, which stands for none, for any other. */
const pulsarTime = (time: number): number => (time >= 1 && time <= lastDate ? Math.floor(time) : 0)

const decoder = new TextDecoder()

/** The messages of a segment. Throws if the segment is malformed. */
export const messagesOf = (
  { firstSeq, incarnation, messages, meta, topic, vals }: Segment,
  stream: string,
  { namespace, tenant, topicFor }: TopicMapping
): ReadonlyArray<RelayMessage> => {
  const metas = JSON.parse(decoder.decode(meta)) as ReadonlyArray<MessageMeta>
  const values = decoder.decode(vals).split("\n")
  if (!Array.isArray(metas) || metas.length !== messages || values.length !== messages)
    throw new SyntaxError(`it has values for ${values.length} of ${messages} messages`)
  const topics = new Map<string, string>()
  return metas.flatMap((one, i) => {
    const seq = firstSeq + i
    const shared = one[6]
    const headers = typeof shared === "number" ? metas[shared]?.[6] : shared
    // projections read time marks from the log; subscribers have no use for them
    if (values[i] === "" && typeof headers === "object" && headers?.[timeHeader] !== undefined) return []
    const of = one[3] ?? tenant ?? ""
    const properties = propertiesOf(stream, incarnation, seq, one, headers)
    const key = one[0] ?? ""
    const local = topicFor === undefined || values[i] === "" ? topic : topicFor(topic, values[i]!)
    let name = topics.get(`${of} ${local}`)
    if (name === undefined) {
      name = topicName({ ...(of !== "" && { tenant: of }), ...(namespace !== undefined && { namespace }) }, local)
      topics.set(`${of} ${local}`, name)
    }
    return [
      {
        seq,
        incarnation,
        topic: name,
        key,
        value: values[i]!,
        eventTime: pulsarTime(one[1]),
        properties,
        meta: one,
        headers,
        refusal: refusalOf(of, key, properties)
      }
    ]
  })
}

/** The `meta` of a segment that consists of this message alone. */
export const metaOf = ({ headers, meta }: RelayMessage): string =>
  JSON.stringify([[...meta.slice(0, 6), headers ?? null]])
