// The answer to a post: a result for each event in the order of the request, and the HTTP status that sums them up.
import type { LogPosition } from "../../log/log.ts"
import { retryAfterSeconds, type Fault, type FaultCode } from "../http/problem.ts"

/** What is sent back. */
export interface Answer {
  readonly status: number
  /** JSON text. */
  readonly body: string
  readonly retryAfter: number | undefined
}

/** Where an event stands in the request: among its events, from 0, and on which line, from 1, where lines matter. */
export interface Spot {
  readonly index: number
  readonly line: number | undefined
}

const passing: ReadonlySet<FaultCode> = new Set(["log_unavailable", "not_attempted", "topic_not_ready"])

/** Collects the results of one request. They are given in order. */
export class Results {
  accepted = 0
  /** Rejected events by code. */
  readonly codes = new Map<FaultCode, number>()
  readonly #minimal: boolean
  readonly #lines: Array<string> = []
  #rejected = 0

  /** `minimal`: only rejected events are listed. */
  constructor(minimal: boolean) {
    this.#minimal = minimal
  }

  accept(topic: string, { partition, position }: LogPosition, eventId: string | undefined): void {
    this.accepted++
    if (this.#minimal) return
    const id = eventId === undefined ? "" : `,"event_id":${JSON.stringify(eventId)}`
    this.#lines.push(
      `{"status":"accepted","topic":${JSON.stringify(topic)},"partition":${partition},"position":${position}${id}}`
    )
  }

  reject({ index, line }: Spot, { code, message, path, try: advice }: Fault): void {
    this.#rejected++
    this.codes.set(code, (this.codes.get(code) ?? 0) + 1)
    this.#lines.push(JSON.stringify({ status: "rejected", error: { index, line, code, message, path, try: advice } }))
  }

  /**
   * 202: the log has every event. 207: it has some. 422: it has none, since none is sound; 400 where none is even JSON. 429 and 503 where sound
   * events were not taken for now, 500 where the log will not take them.
   */
  get status(): number {
    const codes = [...this.codes.keys()]
    if (codes.length === 0) return 202
    if (codes.some((code) => passing.has(code))) return 503
    if (codes.includes("overloaded")) return 429
    if (codes.includes("log_refused")) return 500
    if (this.accepted > 0) return 207
    return codes.every((code) => code === "malformed_json") ? 400 : 422
  }

  answer(traceId: string): Answer {
    const { status } = this
    const counts = `"trace_id":"${traceId}","accepted":${this.accepted},"rejected":${this.#rejected}`
    const retry = status === 503 || status === 429
    return {
      status,
      body: `{${counts},"results":[${this.#lines.join(",")}]}`,
      retryAfter: retry ? retryAfterSeconds : undefined
    }
  }
}
