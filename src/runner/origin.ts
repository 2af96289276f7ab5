// Where an event lies and its envelope, as its changes carry them on. Pure.
import { aggregateHeaders, traceIdOf } from "../log/envelope.ts"
import type { LogRecord } from "../log/log.ts"
import type { Origin } from "./prepared-changes.ts"

/** The origin of a record's event. `traceparent`: the record's, if it is one. */
export const originOf = (
  { eventId, headers, key, partition, position }: LogRecord,
  of: Pick<Origin, "streamTime" | "reached" | "tenant" | "erased"> & { readonly time: number },
  { topic, traceparent }: Pick<Origin, "topic" | "traceparent">
): Origin => {
  const { erased, reached, streamTime, tenant, time: eventTime } = of
  return {
    topic,
    partition,
    position,
    key: key ?? "",
    eventTime,
    streamTime,
    reached,
    tenant,
    traceparent,
    traceId: traceIdOf(traceparent),
    erased,
    eventId,
    correlationId: headers[aggregateHeaders.correlation]
  }
}
