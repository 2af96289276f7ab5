// Adds routes of streams: each takes server-sent events and WebSockets at one path, has a share of the server's slots, and ends with the server.
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify"
import type { Limits } from "../http/limits.ts"
import type { Metrics } from "../http/metrics.ts"
import { Problem } from "../http/problem.ts"
import { Slots } from "../http/slots.ts"
import type { Connection } from "./connection.ts"
import { contentType, SseConnection } from "./sse.ts"
import { WebSocketConnection, webSocketVersion } from "./websocket.ts"

/** A stream that is sent to a client. */
export interface RunningStream {
  /** Sends until the client or the server ends the stream, and resolves to the reason. Never rejects. */
  readonly run: () => Promise<string>
  /** Sends the client the reason, and ends the stream. */
  readonly stop: (reason: string, message: string, advice: string) => void
}
/** A route whose clients follow something. */
export interface StreamRoute<A> {
  readonly url: string
  readonly schema: object
  /**
   * Checks a request before anything is sent. Rejects with a `Problem`. What it resolves to needs no closing: the client may be gone meanwhile.
   */
  readonly open: (request: FastifyRequest) => Promise<A>
  /** The stream for a client that is connected. Called once for each `run`, which releases what it takes. */
  readonly stream: (opened: A, connection: Connection) => RunningStream
}

/** The connection of a request, which outlives the response of one that becomes a WebSocket. */
const connectionOf = (request: FastifyRequest, reply: FastifyReply) => (request.ws ? request.raw.socket : reply.raw)

/** Refuses requests for WebSockets of another version than 13, the only one that is a standard, with a `Problem` 426. */
const assertVersion = (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void => {
  const version = request.headers["sec-websocket-version"]
  if (!request.ws || version === webSocketVersion) return done()
  reply.headers({ "sec-websocket-version": webSocketVersion, upgrade: "websocket", connection: "Upgrade" })
  const sent = version === undefined ? "is missing" : `is ${JSON.stringify(version)}`
  done(
    new Problem(
      426,
      "invalid_request",
      `the header Sec-WebSocket-Version ${sent}; only version ${webSocketVersion} is supported`,
      `connect with a WebSocket client, version ${webSocketVersion} of the protocol`
    )
  )
}

/** Adds a route of streams. */
export type StreamAdder = <A>(route: StreamRoute<A>) => void
/** Returns what adds such routes. All of them together have `limits.streams` slots. */
export const streamRoutes = (
  app: FastifyInstance,
  { limits, metrics }: { readonly limits: Limits; readonly metrics: Metrics }
): StreamAdder => {
  const running = new Map<RunningStream, FastifyRequest>()
  const slots = new Slots(limits.streams)
  /** Takes a slot until the connection closes. */
  const take = (request: FastifyRequest, reply: FastifyReply): void => {
    const connection = connectionOf(request, reply)
    if (connection.destroyed) return
    connection.once("close", slots.take(request.principal, "streams are open", 5))
  }
  const serve = async (stream: RunningStream, request: FastifyRequest): Promise<void> => {
    running.set(stream, request)
    metrics.streams(running.size)
    metrics.streamEnded(await stream.run().finally(() => running.delete(stream)))
    metrics.streams(running.size)
  }
  // a stream may last for days: it ends with the credential that it was opened with
  const checking = setInterval(() => {
    for (const [stream, { refusal }] of running)
      void refusal?.().then((problem) => problem && stream.stop("unauthenticated", problem.message, problem.try))
  }, limits.recheckMs).unref()
  app.addHook("preClose", async () => {
    clearInterval(checking)
    for (const stream of running.keys())
      stream.stop("shutdown", "the server is stopping", "connect again with the position, as Last-Event-ID or from")
  })
  return <A>({ open, schema, stream, url }: StreamRoute<A>): void => {
    const opened = new WeakMap<FastifyRequest, A>()
    app.route({
      method: "GET",
      url,
      schema,
      onRequest: assertVersion,
      config: { scope: "read", parameters: "own", hasCredentialInQuery: true },
      preHandler: async (request, reply) => {
        take(request, reply)
        const connection = connectionOf(request, reply)
        const gone = new Promise<undefined>((resolve) => {
          if (connection.destroyed) resolve(undefined)
          else connection.once("close", () => resolve(undefined))
        })
        const found = await Promise.race([open(request), gone])
        if (found === undefined) reply.hijack()
        else opened.set(request, found as Awaited<A>)
      },
      // a HEAD request gets the headers alone
      handler: async (request, reply) => {
        if (request.method === "HEAD") return reply.type(contentType).send()
        await serve(stream(opened.get(request)!, new SseConnection(request, reply)), request)
        return reply
      },
      wsHandler: (webSocket, request) =>
        serve(stream(opened.get(request)!, new WebSocketConnection(webSocket, request.raw.socket)), request)
    })
  }
}
