// Retry and discard records: what a dead letter keeps of its record, and the records by which people decide about it. Pure.
import type { LogRecord, NewRecord } from "../log/log.ts"
import { singleLineJson } from "../log/rules.ts"
import { isTimeMark } from "../log/time-mark.ts"

/**
 * The header of a retry record: `<projection>/<position of the parked record in the same partition>/<id of the database>`. That projection
 * processes the dead letter, not this record; every other projection of the topic skips it, as do the same projection's processes on another
 * database. Records from before databases had ids lack the last part and count for each database.
 */
export const retryHeader = "millrace-retry"
/**
 * A second header of a discard record, which has `retryHeader`, too: every reader that skips retry records skips it. The dead letter is discarded
 * where the record is processed, so that a replay decides as the first run did.
 */
export const decisionHeader = "millrace-decision"
const discards = "discard"
/**
 * A header of a retry or discard record whose dead letter is one of a build that is not live, `<build>,<next>-`: it counts for that build and for
 * those that are made later, from the number `<next>` on, which replay it. Other builds have dead letters of their own. Without it, every build counts.
 */
export const buildsHeader = "millrace-builds"
/** The builds that a decision about a dead letter counts for: one, and those from a number on. */
export interface DecidedBuilds {
  readonly build: number
  readonly next: number
}
const countsFor = ({ headers }: Pick<LogRecord, "headers">, build: number): boolean => {
  const [, own, next] = /^(\d{1,10}),(\d{1,10})-$/.exec(headers[buildsHeader] ?? "") ?? []
  return own === undefined || build === Number(own) || build >= Number(next)
}
/** The database that a dead letter is in, and the projections that it has, retired ones included. */
export interface RetryOwner {
  /** `millrace.system.id`: 8 hex digits. */
  readonly id: string
  readonly projections: ReadonlyArray<string>
}
interface ProjectionRetry {
  readonly projection: string
  readonly position: number
  readonly database: string | undefined
}
const projectionRetry = /^([a-z_][a-z0-9_]{0,62})\/(\d{1,15})(?:\/([0-9a-f]{8}))?$/
const projectionRetryOf = ({ headers }: Pick<LogRecord, "headers">): ProjectionRetry | undefined => {
  const [, projection, position, database] = projectionRetry.exec(headers[retryHeader] ?? "") ?? []
  return projection === undefined ? undefined : { projection, position: Number(position), database }
}
const isSubscriptionRetry = ({ headers }: Pick<LogRecord, "headers">) =>
  headers[retryHeader]?.startsWith("subscription:") === true

/**
 * Why a record is neither an event for sure nor a retry record: its header has the form from before databases had ids, but names no projection
 * of this database, or a position that is not before its own. Undefined for all other records.
 */
export const retryProblem = (record: LogRecord, owner: RetryOwner | undefined): string | undefined => {
  const retry = record.headers[retryHeader] === undefined ? undefined : projectionRetryOf(record)
  // an id proves that a dlq command wrote the record; newer processes may have projections that this one does not know
  if (owner === undefined || retry === undefined || retry.database !== undefined) return undefined
  const what = `its header ${retryHeader} is ${JSON.stringify(record.headers[retryHeader])}`
  const advice = "if it is an event, retry this dead letter, which processes it without the header; if not, discard it"
  if (!owner.projections.includes(retry.projection))
    return `${what}, and this database has no projection ${retry.projection}; ${advice}`
  return retry.position < record.position ? undefined : `${what}, and that position is not before its own; ${advice}`
}
/** Whether a record is a retry record, of any projection or subscription. With another value, the header is one of any others. */
export const isRetry = (record: LogRecord | undefined, owner?: RetryOwner): boolean =>
  record?.headers[retryHeader] !== undefined &&
  (isSubscriptionRetry(record) || projectionRetryOf(record) !== undefined) &&
  retryProblem(record, owner) === undefined
/** Whether readers of a topic see a record. They do not see what only Millrace reads: retry records, which are copies of earlier records, and time marks. */
export const isForReaders = (record: LogRecord): boolean => !isTimeMark(record) && !isRetry(record)
/** Whether a retry record asks that its dead letter is discarded instead. */
export const isDiscard = ({ headers }: Pick<LogRecord, "headers">): boolean => headers[decisionHeader] === discards
/** The position of the parked record that a record retries or discards for this build of a projection of the database. Undefined if it does neither. */
export const retriedBy = (
  record: LogRecord,
  { projection, version }: { readonly projection: string; readonly version: number },
  owner?: RetryOwner
): number | undefined => {
  const retry = projectionRetryOf(record)
  if (retry?.projection !== projection || !countsFor(record, version)) return undefined
  return owner === undefined || (retry.database ?? owner.id) === owner.id ? retry.position : undefined
}

/** Everything of a record but its position and value, as JSON text that PostgreSQL can store. */
export const storedEnvelope = ({
  eventId,
  eventTime,
  headers,
  key,
  schemaVersion,
  tenant,
  traceparent
}: LogRecord): string => JSON.stringify({ key, eventTime, eventId, tenant, traceparent, schemaVersion, headers })
/** The record that a stored envelope describes, to append it again. The headers of a retry or discard record are left out. */
export const recordFromEnvelope = (envelope: string, partition: number, value: string | null): NewRecord => {
  const { headers, ...rest } = JSON.parse(envelope) as Pick<NewRecord, "key" | "eventTime" | "headers"> &
    Partial<NewRecord>
  const { [retryHeader]: _, [decisionHeader]: __, [buildsHeader]: ___, ...own } = headers
  const { eventId, schemaVersion, tenant, traceparent } = rest
  return { ...rest, partition, value, eventId, tenant, traceparent, schemaVersion, headers: own }
}
/**
 * The retry record of a parked record: a copy of it with the header, so that other readers of the topic see a duplicate. A value that is not
 * JSON, which no log takes, is in it as a JSON text. `database`: the id of the database that has the dead letter. `builds`: those that it counts for;
 * undefined: all.
 */
export const retryRecord = (
  record: NewRecord,
  projection: string,
  position: number,
  database?: string,
  builds?: DecidedBuilds
): NewRecord => ({
  ...record,
  value: record.value === null ? null : (singleLineJson(record.value) ?? JSON.stringify(record.value)),
  headers: {
    ...record.headers,
    [retryHeader]: `${projection}/${position}${database === undefined ? "" : `/${database}`}`,
    ...(builds !== undefined && { [buildsHeader]: `${builds.build},${builds.next}-` })
  }
})
/** The discard record of a parked record: as its retry record, with `decisionHeader`. */
export const discardRecord = (
  record: NewRecord,
  projection: string,
  position: number,
  database?: string,
  builds?: DecidedBuilds
): NewRecord => {
  const retry = retryRecord(record, projection, position, database, builds)
  return { ...retry, headers: { ...retry.headers, [decisionHeader]: discards } }
}
