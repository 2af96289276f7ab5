// The gateway's bounds, with their defaults. Every queue, body and stream of the server is held to one of them.

/** Bounds of the server. Bytes are of UTF-8, times in milliseconds. */
export interface Limits {
  /** One request's body, after decompression. */
  readonly bodyBytes: number
  /** All bodies that are held at once; more are refused with 429. */
  readonly heldBytes: number
  /** One event. */
  readonly eventBytes: number
  /** Events in one request. */
  readonly events: number
  /** Objects and arrays within one another. */
  readonly depth: number
  /** A key, an event id, a tenant. */
  readonly nameBytes: number
  /** How far ahead of now an event may be dated where no projection of its topic says. */
  readonly maxAheadMs: number
  /** Events that wait for their turn at the log, by topic; more are refused with 429. */
  readonly waitingEvents: number
  /** Mean delay of the event loop from which posts are refused with 503. 0: never, as on Deno, which does not measure it. */
  readonly eventLoopDelayMs: number
  /** Streams open at once. */
  readonly streams: number
  /** How long a stream's client may leave what was sent to it unread. */
  readonly slowClientMs: number
  /** Pause between a stream's comments, which keep proxies from closing it. */
  readonly heartbeatMs: number
  /** Bytes of recent records that are kept for all streams of a topic. */
  readonly recentBytes: number
  /** How long a closing server waits for requests that were begun. */
  readonly closeMs: number
}

export const defaultLimits: Limits = {
  bodyBytes: 16 * 1024 * 1024,
  heldBytes: 64 * 1024 * 1024,
  eventBytes: 1024 * 1024,
  events: 100_000,
  depth: 64,
  nameBytes: 1024,
  maxAheadMs: 3_600_000,
  waitingEvents: 20_000,
  eventLoopDelayMs: 2_000,
  streams: 1_000,
  slowClientMs: 15_000,
  heartbeatMs: 15_000,
  recentBytes: 4 * 1024 * 1024,
  closeMs: 5_000
}
