// Converts segments of the outbox into messages for Pulsar: topic, key, payload, properties. Pure.
import { addEnvelope, envelopeHeaders, streamHeaders } from "../../log/envelope.ts"
import { timeHeader } from "../../log/time-mark.ts"
import type { Segment } from "../../relay/outbox.ts"
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
  /** Why the message can never be sent: its topic cannot exist. Undefined if it can. */
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
const tenantName = /^(?!\.+$)[\w.=:-]+$/
const refusalOf = (tenant: string): string =>
  `Pulsar cannot have a tenant named ${JSON.stringify(tenant)}: names of tenants have letters, digits and _ . = : - only`

const decoder = new TextDecoder()

/** The messages of a segment. Throws a SyntaxError if the segment is malformed. */
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
        key: one[0] ?? "",
        value: values[i]!,
        eventTime: one[1],
        properties: propertiesOf(stream, incarnation, seq, one, headers),
        meta: one,
        headers,
        refusal: of === "" || tenantName.test(of) ? undefined : refusalOf(of)
      }
    ]
  })
}

/** The `meta` of a segment that consists of this message alone. */
export const metaOf = ({ headers, meta }: RelayMessage): string =>
  JSON.stringify([[...meta.slice(0, 6), headers ?? null]])
