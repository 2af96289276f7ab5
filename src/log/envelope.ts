// The envelope: what accompanies a value in a log, and the one list of the headers that carry it. Pure.

/** What accompanies a value, whatever the log. `envelopeHeaders` names the headers that carry it on Kafka and Pulsar. */
export interface Envelope {
  readonly eventId: string | undefined
  readonly tenant: string | undefined
  /** W3C trace context: `00-<32 hex trace id>-<16 hex span id>-<2 hex flags>`. */
  readonly traceparent: string | undefined
  /** The version of the event type that the value was written with. Undefined: 1. */
  readonly schemaVersion: number | undefined
  /** All other headers. Records with equal headers may share the object. */
  readonly headers: Readonly<Record<string, string>>
}

/** The names of the envelope's headers (on Pulsar: properties), by field. They are public: other programs read and write them. */
export const envelopeHeaders = {
  /**
   * Epoch milliseconds. Kafka only: there the record's own timestamp is the time of its append, because retention goes by it. Pulsar and
   * PostgreSQL have a field for the event time.
   */
  eventTime: "event_time",
  eventId: "event_id",
  tenant: "tenant",
  /** The trace id within `traceparent`, for programs that search by it. */
  traceId: "trace_id",
  traceparent: "traceparent",
  schemaVersion: "schema_version"
} as const

/** The names of the headers by which a derived message is known again, wherever it is delivered. */
export const streamHeaders = {
  /** The outbox stream, `<projection>/<source>/<partition>`. */
  stream: "millrace-stream",
  /** The message's sequence number in that stream, from 1 without a gap. */
  sequence: "millrace-seq",
  /** The incarnation that committed the message: after a restore from backup a sequence number may mean another message. */
  incarnation: "millrace-incarnation"
} as const

/** The names of the headers that the records of an aggregate's events carry in addition. */
export const aggregateHeaders = {
  /** The event's version in its stream, from 1 without a gap. */
  version: "millrace-version",
  /** The id of the command that appended the event. */
  command: "millrace-command",
  /** What the event belongs to, across streams; given with the first command and handed on. */
  correlation: "millrace-correlation",
  /** The id of what caused the command, such as the event that a policy reacted to. */
  causation: "millrace-causation",
  /** The user or program that sent the command. */
  actor: "millrace-actor",
  /** The event's tags, as a JSON array of texts. */
  tags: "millrace-tags"
} as const

/** As many characters of an incarnation as the log on Kafka and on PostgreSQL keeps in the header. */
export const incarnationDigits = 8

/** Whether a text is a trace context of W3C: two digits of the version, 32 of the trace, 16 of the span, two of flags. */
export const isTraceparent = (text: string): boolean =>
  text.length === 55 &&
  text[2] === "-" &&
  text[35] === "-" &&
  text[52] === "-" &&
  !text.startsWith("ff") &&
  hexBits(text, 0, 2) >= 0 &&
  hexBits(text, 3, 35) > 0 &&
  hexBits(text, 36, 52) > 0 &&
  hexBits(text, 53, 55) >= 0

/** Zero if all characters of the part are zeros, more if they are hex digits, less if one is not. Each record's is read: by a regular expression it takes twice as long. */
const hexBits = (text: string, from: number, to: number): number => {
  let bits = 0
  for (let i = from; i < to; i++) {
    const code = text.charCodeAt(i)
    const isHex = (code >= 48 && code <= 57) || (code >= 97 && code <= 102)
    if (!isHex) return -1
    bits |= code ^ 48
  }
  return bits
}

/** The 32 hex digits of a `traceparent`'s trace id. */
export const traceIdOf = (traceparent: string | undefined): string | undefined => traceparent?.slice(3, 35)

/** An envelope without its other headers; null counts as undefined. */
type EnvelopeFields = { readonly [K in keyof Omit<Envelope, "headers">]?: Envelope[K] | null }
/**
 * Adds the headers of an envelope to `headers`, in place of headers with the same names. Event time is not among them: see
 * `envelopeHeaders.eventTime`.
 */
export const addEnvelope = (headers: Record<string, string>, envelope: EnvelopeFields): void => {
  const { eventId, schemaVersion, tenant, traceparent } = envelope
  if (eventId != null) headers[envelopeHeaders.eventId] = eventId
  if (tenant != null) headers[envelopeHeaders.tenant] = tenant
  if (traceparent != null) {
    headers[envelopeHeaders.traceId] = traceIdOf(traceparent)!
    headers[envelopeHeaders.traceparent] = traceparent
  }
  if (schemaVersion != null) headers[envelopeHeaders.schemaVersion] = String(schemaVersion)
}
