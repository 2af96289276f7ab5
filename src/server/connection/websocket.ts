// WebSockets: their messages as text, the connection of one, and what a server accepts of clients, which have nothing to send.
import type { IncomingMessage } from "node:http"
import type { Socket } from "node:net"
import type { FastifyInstance } from "fastify"
import type { WebSocket } from "ws"
import { endWith } from "../http/client-error.ts"
import type { Metrics } from "../http/metrics.ts"
import { Problem } from "../http/problem.ts"
import { pathOfTarget } from "../http/target.ts"
import { type Connection, drainedOf, endMs, type EndOfStream, type StreamMessage } from "./connection.ts"

/** Bytes of a message of a client: it has nothing to say. */
const mostBytes = 1_024
/** Frames that a client may send between two heartbeats. The answers to pings of a client that does not read would fill the memory. */
const mostFrames = 100
/** Heartbeats without an answer after which a client is given up. */
const mostMissed = 2
/** The protocol that is chosen of those that a client offers, so that the answer does not repeat the one with its credential. */
const protocol = "millrace"

/** The version of the protocol. ws takes the draft 8, too, whose messages are the same. */
export const webSocketVersion = "13"

/** The codes with which a WebSocket is closed, by the reason. */
const closeCodes: Readonly<Record<string, number>> = {
  shutdown: 1001,
  internal_error: 1011,
  log_unavailable: 1013,
  slow_client: 4000,
  position_gone: 4001,
  too_many_messages: 4002,
  view_replaced: 4003,
  changes_expired: 4004,
  view_timeout: 4005,
  unauthenticated: 4006
}

/** A message as JSON text. */
export const messageText = ({ data, event, id }: StreamMessage): string =>
  `{"id":${JSON.stringify(id)},"event":${JSON.stringify(event)},"data":${data}}`

/** The paths of streams. */
const streams = /^\/v1\/(?:alerts|topics\/[^/?]+\/stream|views\/[^/?]+\/changes)\/?(?:\?|$)/
/**
 * Whether a request asks for a WebSocket of a stream. Any other upgrade, as that of HTTP/2 by Java's client, is ignored: the request is
 * answered as one without it. Runtimes before Node 22.21 do not ask.
 */
export const shouldUpgrade = ({ headers, method, url = "" }: IncomingMessage): boolean => {
  if (method !== "GET" || headers.upgrade?.toLowerCase() !== "websocket") return false
  const path = pathOfTarget(url)
  return streams.test(path) && isDecodable(path)
}
/** Whether Fastify can decode a path: it answers others without the hooks that close the connection. */
const isDecodable = (url: string): boolean => {
  try {
    return decodeURI(url.split("?", 1)[0]!) !== ""
  } catch {
    return false
  }
}

/** Lets the routes of a server that are added later take WebSockets, by `wsHandler`. */
export const acceptWebSockets = async (app: FastifyInstance, metrics: Metrics): Promise<void> => {
  const options = {
    maxPayload: mostBytes,
    perMessageDeflate: false,
    closeTimeout: endMs,
    clientTracking: false,
    handleProtocols: (offered: Set<string>) => (offered.has(protocol) ? protocol : [...offered][0]!)
  }
  await app.register((await import("@fastify/websocket")).default, {
    options,
    // protocol errors, after which ws closes the connection; the connection listens, too
    errorHandler: () => {},
    // streams end themselves, with the reason
    preClose: (done) => done()
  })
  // in the form of all other problems; ws would answer with a text
  app.websocketServer.on("wsClientError", ({ message }, socket) => {
    const advice = `connect with a WebSocket client, version ${webSocketVersion} of the protocol`
    const problem = new Problem(400, "invalid_request", message, advice)
    metrics.refused(problem.code)
    endWith(socket as Socket, problem, [`Sec-WebSocket-Version: ${webSocketVersion}`])
  })
}

/** A WebSocket. */
export class WebSocketConnection implements Connection {
  readonly #webSocket: WebSocket
  readonly #socket: Socket
  #reason = "client_gone"
  #missed = 0
  #frames = 0

  constructor(webSocket: WebSocket, socket: Socket) {
    this.#webSocket = webSocket
    this.#socket = socket
    const count = () => {
      if (++this.#frames > mostFrames) this.#abort("too_many_messages")
    }
    webSocket.on("message", count).on("ping", count)
    webSocket.on("pong", () => {
      this.#missed = 0
      count()
    })
    webSocket.on("error", () => this.#abort("protocol_error"))
    // ws would wait without a limit for a client that has closed its half and does not read the rest
    socket.once("end", () => this.#force())
  }

  get isGone(): boolean {
    return this.#webSocket.readyState === this.#webSocket.CLOSED
  }

  onGone(listener: (reason: string) => void): void {
    if (this.isGone) listener(this.#reason)
    else this.#webSocket.once("close", () => listener(this.#reason))
  }

  position(id: string): void {
    this.#write(`{"id":${JSON.stringify(id)},"event":"position"}`)
  }

  send(messages: ReadonlyArray<StreamMessage>): boolean {
    // one packet of them all
    this.#socket.cork()
    for (const message of messages) this.#write(messageText(message))
    this.#socket.uncork()
    return !this.#socket.writableNeedDrain
  }

  drained(ms: number): Promise<boolean> {
    return drainedOf(this.#socket, ms)
  }

  heartbeat(id: string | undefined): void {
    this.#frames = 0
    // what was sent is before the ping: whether the client reads it is for `drained`
    if (this.#socket.writableNeedDrain || this.#webSocket.readyState !== this.#webSocket.OPEN) return
    if (++this.#missed > mostMissed) return this.#abort("no_pong")
    if (id !== undefined) this.position(id)
    this.#webSocket.ping()
  }

  end(end: EndOfStream): void {
    this.#write(JSON.stringify({ event: "end", data: end }))
    this.#webSocket.close(closeCodes[end.reason] ?? 1011, end.reason)
    this.#force()
  }

  #write(text: string): void {
    if (this.#webSocket.readyState === this.#webSocket.OPEN) this.#webSocket.send(text)
  }

  /** Closes the connection after a while, whatever the client does. */
  #force(): void {
    const force = setTimeout(() => this.#webSocket.terminate(), endMs)
    this.#webSocket.once("close", () => clearTimeout(force))
  }

  #abort(reason: string): void {
    if (this.#reason !== "client_gone") return
    this.#reason = reason
    // of one that breaks the protocol, ws has closed with the reason; from one that answers no ping, no answer to a close comes either
    if (reason === "no_pong") this.#webSocket.terminate()
    // after it, ws answers no more pings
    if (reason === "too_many_messages") this.#webSocket.close(closeCodes[reason], reason)
  }
}
