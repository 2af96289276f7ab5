// The response to a post: a result for each event, in the order of the request, and the HTTP status for all of them.
import type { LogPosition } from "../../log/log.ts"
import { positionToken, type TokenPosition } from "../../log/position-token.ts"
import { retryAfterSeconds, type Fault, type FaultCode } from "../http/problem.ts"

/** The response. */
export interface Answer {
  readonly status: number
  /** JSON text. */
  readonly body: string
  readonly retryAfter: number | undefined
  /** The position token of the events that are in the log; undefined if none is. */
  readonly token: string | undefined
}

/** Where an event is in the request: its index, from 0, and in NDJSON its line, from 1. */
export interface EventPlace {
  readonly index: number
  readonly line: number | undefined
}

/** Codes of failures that may pass. */
const passing: ReadonlySet<FaultCode> = new Set(["log_unavailable", "not_attempted", "topic_not_ready"])

/** Collects the results of one request, which are added in the order of its events. */
export class Results {
  accepted = 0
  /** The number of rejected events by code. */
  readonly codes = new Map<FaultCode, number>()
  readonly #minimal: boolean
  readonly #lines: Array<string> = []
  /** The position behind the last event of each partition. */
  readonly #ends = new Map<string, TokenPosition>()
  #rejected = 0

  /** `minimal`: the response lists rejected events only. */
  constructor(minimal: boolean) {
    this.#minimal = minimal
  }

  accept(topic: string, { partition, position }: LogPosition, eventId: string | undefined): void {
    this.accepted++
    this.#ends.set(`${partition}/${topic}`, { topic, partition, position: position + 1 })
    if (this.#minimal) return
    const id = eventId === undefined ? "" : `,"event_id":${JSON.stringify(eventId)}`
    this.#lines.push(
      `{"status":"accepted","topic":${JSON.stringify(topic)},"partition":${partition},"position":${position}${id}}`
    )
  }

  reject({ index, line }: EventPlace, { code, message, path, try: advice }: Fault): void {
    this.#rejected++
    this.codes.set(code, (this.codes.get(code) ?? 0) + 1)
    this.#lines.push(JSON.stringify({ status: "rejected", error: { index, line, code, message, path, try: advice } }))
  }

  /**
   * 202: all events are in the log. 207: some are, the others are invalid. 422: all are invalid; 400 if none is even JSON in UTF-8. 429 and 503: valid
   * events were not appended and may be sent again. 500: the log refuses valid events.
   */
  get status(): number {
    const codes = [...this.codes.keys()]
    if (codes.length === 0) return 202
    if (codes.some((code) => passing.has(code))) return 503
    if (codes.includes("overloaded")) return 429
    if (codes.includes("log_refused")) return 500
    if (this.accepted > 0) return 207
    return codes.every((code) => code === "malformed_json" || code === "invalid_utf8") ? 400 : 422
  }

  answer(traceId: string): Answer {
    const { status } = this
    const counts = `"trace_id":"${traceId}","accepted":${this.accepted},"rejected":${this.#rejected}`
    const token = this.#ends.size === 0 ? undefined : positionToken(this.#ends.values())
    const retry = status === 503 || status === 429
    return {
      status,
      token,
      body: `{${counts}${token === undefined ? "" : `,"token":"${token}"`},"results":[${this.#lines.join(",")}]}`,
      retryAfter: retry ? retryAfterSeconds : undefined
    }
  }
}
