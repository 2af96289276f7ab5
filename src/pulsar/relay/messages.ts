// Segments of the outbox as messages for Pulsar: topic, key, payload, properties. It sends none.
import { addEnvelope, envelopeHeaders, streamHeaders } from "../../log/envelope.ts"
import type { Segment } from "../../relay/outbox.ts"
import { topicName } from "../client/topic-names.ts"

/** A message of a stream. */
export interface Message {
  readonly seq: number
  readonly incarnation: string
  /** In full, `persistent://TENANT/NAMESPACE/TOPIC`, without a partition. */
  readonly topic: string
  readonly key: string
  /** The record's JSON; empty for a deletion. */
  readonly value: string
  /** Epoch milliseconds. */
  readonly eventTime: number
  /** Whoever sends it adds `sentProperty`. */
  readonly properties: Record<string, string>
  /** Its part of the segment's `meta`. */
  readonly meta: Meta
  readonly headers: Meta[6]
  /** Why it can be sent nowhere: there is no such place and cannot be. */
  readonly refusal?: string | undefined
}
/** Where topics are of which a record does not say. */
export interface Destination {
  /** Of records without a tenant. */
  readonly tenant: string | undefined
  readonly namespace: string | undefined
  /** The name on Pulsar of a topic whose values are parted by what they say; undefined where no topic is. */
  readonly topicFor: ((topic: string, value: string) => string) | undefined
}
/** What a segment says of one message beside its value. */
type Meta = readonly [
  key: string | null,
  eventTime: number,
  eventId?: string | null,
  tenant?: string | null,
  traceparent?: string | null,
  schemaVersion?: number | null,
  headers?: Readonly<Record<string, string>> | number | null
]

/** The sequence id of a message, as its sender counts: see `TopicPlace.sent`. */
export const sentProperty = "millrace-sent"
/** What a relay says itself. A record's header of such a name does not get through. */
const own = new Set<string>([
  envelopeHeaders.traceId,
  envelopeHeaders.traceparent,
  envelopeHeaders.eventId,
  envelopeHeaders.tenant,
  envelopeHeaders.schemaVersion,
  ...Object.values(streamHeaders),
  sentProperty
])

const propertiesOf = (stream: string, incarnation: string, seq: number, meta: Meta, headers: Meta[6]) => {
  const [, , eventId, tenant, traceparent, schemaVersion] = meta
  const properties: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers ?? {})) if (!own.has(name)) properties[name] = value
  addEnvelope(properties, { eventId, tenant, traceparent, schemaVersion })
  properties[streamHeaders.stream] = stream
  properties[streamHeaders.sequence] = String(seq)
  properties[streamHeaders.incarnation] = incarnation
  return properties
}

// of `a/b` the broker would make a topic of the form tenant/cluster/namespace/topic, whether or not there is such a tenant
const tenantName = /^(?!\.+$)[\w.=:-]+$/
const refusalOf = (tenant: string): string =>
  `no tenant of Pulsar is named ${JSON.stringify(tenant)}: such names have letters, digits and _ . = : - only`

const decoder = new TextDecoder()

/** The messages of a segment. Throws a SyntaxError where the segment is not what segments are. */
export const messagesOf = (
  { firstSeq, incarnation, messages, meta, topic, vals }: Segment,
  stream: string,
  { namespace, tenant, topicFor }: Destination
): ReadonlyArray<Message> => {
  const metas = JSON.parse(decoder.decode(meta)) as ReadonlyArray<Meta>
  const values = decoder.decode(vals).split("\n")
  if (!Array.isArray(metas) || metas.length !== messages || values.length !== messages)
    throw new SyntaxError(`the segment has texts for ${values.length} of ${messages} messages`)
  const topics = new Map<string, string>()
  return metas.map((one, i) => {
    const seq = firstSeq + i
    const shared = one[6]
    const headers = typeof shared === "number" ? metas[shared]?.[6] : shared
    const of = one[3] ?? tenant ?? ""
    const local = topicFor === undefined || values[i] === "" ? topic : topicFor(topic, values[i]!)
    let name = topics.get(`${of} ${local}`)
    if (name === undefined) {
      name = topicName({ ...(of !== "" && { tenant: of }), ...(namespace !== undefined && { namespace }) }, local)
      topics.set(`${of} ${local}`, name)
    }
    return {
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
  })
}

/** The `meta` of a segment that has this message alone. */
export const metaOf = ({ headers, meta }: Message): string => JSON.stringify([[...meta.slice(0, 6), headers ?? null]])
