// Server-sent events: the frames as text, and the connection of a response.
import type { ServerResponse } from "node:http"
import type { FastifyReply, FastifyRequest } from "fastify"
import { traceFor } from "../http/request.ts"
import { type Connection, drainedOf, endMs, type EndOfStream, type StreamMessage } from "./connection.ts"

/** The media type of a response. */
export const contentType = "text/event-stream; charset=utf-8"

/** A message as an event. A line break in its data, which JSON has between values only, begins another line of data. */
export const messageFrame = ({ data, event, id }: StreamMessage): string =>
  `id: ${id}\nevent: ${event}\ndata: ${/[\r\n]/.test(data) ? data.split(/\r\n|\r|\n/).join("\ndata: ") : data}\n\n`

/** An id without data: `EventSource` keeps it to resume from, and fires no event. */
export const positionFrame = (id: string): string => `id: ${id}\n\n`

/** A comment: clients ignore it, and it keeps proxies from closing the connection. */
export const commentFrame = (text: string): string => `: ${text}\n\n`

/** The event that a server sends before it ends a stream. It has no id, so a client that resumes misses nothing. */
export const endFrame = (end: EndOfStream): string => `event: end\ndata: ${JSON.stringify(end)}\n\n`

/**
 * Whether a request is one of `EventSource`, or of another client that takes nothing but server-sent events: by its standard it closes for good on
 * any other status than 200. Clients that take JSON, too, get statuses.
 */
export const takesEventsAlone = ({ headers: { accept }, method }: FastifyRequest): boolean =>
  method === "GET" && accept !== undefined && /^\s*text\/event-stream\s*(;[^,]*)?$/i.test(accept)

/** Whether a request that is refused with this status may succeed later. */
export const isPassing = (status: number): boolean => status === 429 || status === 503 || status === 504

/** A whole stream that tells a client why it gets nothing now, and to connect again after so many seconds. */
export const laterFrames = (end: EndOfStream, seconds: number): string =>
  `retry: ${seconds * 1_000}\n\n${endFrame(end)}`

/** A response of server-sent events. */
export class SseConnection implements Connection {
  readonly #response: ServerResponse

  /** Takes the response over from Fastify, and sends the headers. */
  constructor(request: FastifyRequest, reply: FastifyReply) {
    reply.hijack()
    this.#response = reply.raw
    // a client may keep its stream for days
    request.raw.setTimeout(0)
    if (this.isGone) return
    this.#response.writeHead(200, {
      ...(reply.getHeaders() as Record<string, string>),
      traceparent: traceFor(request).traceparent,
      "content-type": contentType,
      "cache-control": "no-store",
      // without it nginx would buffer records
      "x-accel-buffering": "no"
    })
    this.#response.write("retry: 1000\n\n")
  }

  get isGone(): boolean {
    return this.#response.destroyed
  }

  onGone(listener: (reason: string) => void): void {
    if (this.isGone) listener("client_gone")
    else this.#response.once("close", () => listener("client_gone"))
  }

  position(id: string): void {
    this.#response.write(positionFrame(id))
  }

  send(messages: ReadonlyArray<StreamMessage>): boolean {
    return this.#response.write(messages.map(messageFrame).join(""))
  }

  drained(ms: number): Promise<boolean> {
    return drainedOf(this.#response, ms)
  }

  heartbeat(id: string | undefined): void {
    if (this.#response.writableNeedDrain || this.isGone) return
    this.#response.write(id === undefined ? commentFrame("heartbeat") : positionFrame(id))
  }

  end(end: EndOfStream): void {
    const response = this.#response
    response.end(endFrame(end))
    // a client that does not read would keep the connection open
    const force = setTimeout(() => response.destroy(), endMs)
    response.once("close", () => clearTimeout(force))
  }
}
