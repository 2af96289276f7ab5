// The limits of the server, with their defaults: every queue, body and stream has one.
import { defaultMaxAheadMs } from "../../model/event-times.ts"
import { maxTenantBytes } from "../../log/acceptable.ts"

/** Limits of the server. Bytes are bytes of UTF-8, times are milliseconds. */
export interface Limits {
  /** The body of one request, after decompression. */
  readonly bodyBytes: number
  /** All bodies in memory together; further requests are refused with 429. */
  readonly heldBytes: number
  /** How long a client may send nothing of its body; then the request is refused with 408. */
  readonly bodyIdleMs: number
  /** After how long an upload may be refused with 408 if other requests need its memory. */
  readonly bodySlowMs: number
  /** How long the headers of a request may take, and the whole of it. Then the connection is closed. */
  readonly headersMs: number
  readonly requestMs: number
  /** One event. */
  readonly eventBytes: number
  /** Events in one request. */
  readonly events: number
  /** How deep objects and arrays may be nested. */
  readonly depth: number
  /** A key, an event id or a tenant. */
  readonly nameBytes: number
  /** How far in the future an event may be dated, if no projection reads its topic. */
  readonly maxAheadMs: number
  /** Events of one topic that wait to be appended; more are refused with 429. */
  readonly waitingEvents: number
  /** How long the log may not answer an append before further events are refused with 503. */
  readonly stalledMs: number
  /** How long a request waits for the log; then the answer is 503, and its events may be stored all the same. */
  readonly appendMs: number
  /** How long a command to an aggregate or a read of one may take; then the answer is 503, and the command may be stored all the same. */
  readonly commandMs: number
  /** The mean delay of the event loop at which posts are refused with 503. 0: never, for example on Deno, which does not measure the delay. */
  readonly eventLoopDelayMs: number
  /** HTTP streams that are open at once; further ones are refused with 429. Of these, and the two below, one tenant or credential gets half. */
  readonly streams: number
  /** How long the client of a stream may read nothing of what was sent. */
  readonly slowClientMs: number
  /** The pause between heartbeat comments, which keep proxies from closing a stream. */
  readonly heartbeatMs: number
  /** How often the credentials of open streams are checked. */
  readonly recheckMs: number
  /** Bytes of recent records that are kept for all streams of a topic. */
  readonly recentBytes: number
  /** How long a query of a view may take. It ends then. */
  readonly viewMs: number
  /** How long the changes of a view may take to be opened; then the answer is 503. */
  readonly openMs: number
  /** How long a request waits for what its token names; then the answer is 504. */
  readonly waitMs: number
  /** Requests that wait for what their tokens name, of each kind of route. They hold nothing else; further ones are refused with 429. */
  readonly waiting: number
  /** Requests that read views at once; further ones are refused with 429. */
  readonly readingViews: number
  /** The rows of one page of a view; a page that would be larger has fewer rows. */
  readonly viewBytes: number
  /** How long a closing server waits for running requests. */
  readonly closeMs: number
}

/** The limits that apply unless an option says otherwise. */
export const defaultLimits: Limits = {
  bodyBytes: 16 * 1024 * 1024,
  heldBytes: 64 * 1024 * 1024,
  bodyIdleMs: 10_000,
  bodySlowMs: 5_000,
  headersMs: 10_000,
  requestMs: 120_000,
  eventBytes: 1024 * 1024,
  events: 100_000,
  depth: 64,
  nameBytes: maxTenantBytes,
  maxAheadMs: defaultMaxAheadMs,
  waitingEvents: 20_000,
  stalledMs: 5_000,
  appendMs: 30_000,
  commandMs: 30_000,
  eventLoopDelayMs: 2_000,
  streams: 1_000,
  slowClientMs: 15_000,
  heartbeatMs: 15_000,
  recheckMs: 2_000,
  recentBytes: 4 * 1024 * 1024,
  viewMs: 10_000,
  openMs: 30_000,
  waitMs: 10_000,
  waiting: 100,
  readingViews: 100,
  viewBytes: 4 * 1024 * 1024,
  closeMs: 5_000
}
