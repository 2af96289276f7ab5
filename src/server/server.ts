// The HTTP server: a Fastify application that listens while its scope is open. Its routes are in gateway/, streams/ and health.ts.
import type { IncomingMessage } from "node:http"
import type { Server as TlsServer } from "node:tls"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Cause from "effect/Cause"
import type * as Scope from "effect/Scope"
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify"
import type { Application } from "../model/application.ts"
import { EventStore } from "../aggregate/event-store.ts"
import { Log } from "../log/log.ts"
import { type Access, guard, openAccess } from "./access/access.ts"
import { credentialRoute } from "./access/routes.ts"
import { aggregatesByName } from "./aggregates/catalog.ts"
import { describe } from "./aggregates/openapi.ts"
import { commands, reads } from "./aggregates/routes.ts"
import { Appender, type Appended } from "./gateway/appender.ts"
import { BodyMemory } from "./http/body.ts"
import { catalogOf } from "./http/catalog.ts"
import { answerParserErrors } from "./http/client-error.ts"
import { changes } from "./changes/routes.ts"
import type { ChangeSource } from "./changes/source.ts"
import { Checker } from "./gateway/validate.ts"
import { closerOf } from "./closing.ts"
import { streamRoutes } from "./connection/routes.ts"
import { contentType, isPassing, laterFrames, takesEventsAlone } from "./connection/sse.ts"
import { acceptWebSockets, shouldUpgrade } from "./connection/websocket.ts"
import { documentation } from "./documentation.ts"
import type { ListenFailed, PortInUse } from "./errors.ts"
import { listenError } from "./port.ts"
import { gateway } from "./gateway/route.ts"
import { health, type Readiness, type SystemStatus } from "./health.ts"
import { defaultLimits, type Limits } from "./http/limits.ts"
import { refuseUnknownParameters } from "./http/known-parameters.ts"
import { repeatedHeader, undecodableQuery } from "./http/parameters.ts"
import { metricsOf, type Metrics } from "./http/metrics.ts"
import { type PressureParts, shedLoad } from "./http/pressure.ts"
import { operations } from "./operations/routes.ts"
import { partitionsOf } from "./gateway/partitions.ts"
import { Problem, problemBody, problemDetails, problemJson, retryAfterSeconds } from "./http/problem.ts"
import type { RateLimits } from "./http/rate-limits.ts"
import { routeMethods } from "./http/route-methods.ts"
import { isLoopbackName, siteCheck } from "./http/site-check.ts"
import { takeTarget, targetProblem } from "./http/target.ts"
import {
  followTls,
  readTls,
  serverOptionsOf,
  type TlsOptions,
  type TlsReport,
  type TlsTexts,
  TlsUnusable
} from "./http/tls.ts"
import { guardHandshakes } from "./http/tls-deno.ts"
import { allowOrigins, protect } from "./plugins.ts"
import { prepare } from "./preparing.ts"
import { records } from "./streams/log-routes.ts"
import { traceFor } from "./http/request.ts"
import { boundsOf, streams } from "./streams/routes.ts"
import { declaredViews } from "./views/catalog.ts"
import { describeViews } from "./views/openapi.ts"
import type { ViewReader } from "./views/reader.ts"
import { views } from "./views/routes.ts"
import type { System } from "../system/system.ts"

const loopback = "127.0.0.1"

/** The options of every server. */
interface ServerOptions {
  /** 0 picks a free port. */
  readonly port: number
  /** Default 127.0.0.1. */
  readonly host?: string
  /** The response of `/readyz`. Default: ready. */
  readonly ready?: Effect.Effect<Readiness>
  /** The response of `/status`. Default: there is no such route. */
  readonly status?: Effect.Effect<SystemStatus>
  /** Metrics in Prometheus' text format that `/metrics` has beside those of the process. Default: none. */
  readonly moreMetrics?: Effect.Effect<string>
  /** The limits that differ from `defaultLimits`. */
  readonly limits?: Partial<Limits>
  /**
   * On a loopback address: names that a Host header may have beside loopback names, for example that of a reverse proxy on this machine.
   * Default: none.
   */
  readonly hosts?: ReadonlyArray<string>
  /** The origins whose pages may call the server (CORS). Default: none. */
  readonly cors?: ReadonlyArray<string>
  /** How many requests one client may send, by the scope of the route. Default: no limit. */
  readonly rateLimits?: RateLimits
  /** Addresses and networks of proxies whose X-Forwarded headers count. Default: none. */
  readonly trustedProxies?: ReadonlyArray<string>
  /** What keeps the server from taking events and commands. Default: nothing but the log. */
  readonly pressure?: PressureParts | undefined
  /** The files of TLS. Default: plain HTTP. */
  readonly tls?: TlsOptions | undefined
  /** How requests are authenticated. Default: every request may do everything. */
  readonly access?: Access
  /** Whether the routes of an application follow once it has started: requests to them get 503 until then. Default false. */
  readonly isStarting?: boolean
  /** What Fastify's logger writes to standard output, as JSON lines. Default `silent`. */
  readonly logLevel?: "silent" | "error" | "warn" | "info" | "debug"
}
/** The options of a server of an application. */
export interface ServeOptions extends ServerOptions {
  readonly application: Application.Any
  /**
   * The routes: `gateway` accepts events and commands, `api` streams records, reads aggregates and has the documentation. Default: both.
   * Health routes always exist.
   */
  readonly roles?: ReadonlyArray<"gateway" | "api">
  /** Where the events of the application's aggregates are. Default: the server has no routes of aggregates. */
  readonly eventStore?: EventStore["Service"]
  /** Where the application's read models and views are read. Default: the server has no routes of views. */
  readonly views?: ViewReader
  /** Where the changes of views are read. Default: the server has no route that follows a view. */
  readonly changes?: ChangeSource
  /** The system that the routes of operations are about. Default: the server has none of these routes. */
  readonly system?: System
}
/** Why a server does not start. */
export type ServeError = PortInUse | ListenFailed | TlsUnusable
/** A server that listens. */
export interface Served {
  /** Without a trailing slash. */
  readonly url: string
  readonly port: number
}

const problemOf = (error: FastifyError | Problem, limits: Limits, isAggregate: boolean): Problem => {
  if (error instanceof Problem) return error
  const status = error.statusCode ?? 500
  if (error.code === "FST_UNDER_PRESSURE") {
    return new Problem(
      503,
      "overloaded",
      "the server is busy",
      "send the request again after Retry-After seconds",
      retryAfterSeconds
    )
  }
  if (status === 415) {
    const types = isAggregate ? "application/json" : "application/json or application/x-ndjson"
    return new Problem(415, "unsupported_media_type", error.message, `send ${types}`)
  }
  if (status === 413) {
    return new Problem(413, "body_too_large", error.message, `send at most ${limits.bodyBytes} bytes at once`)
  }
  if (status === 429)
    return new Problem(
      429,
      "rate_limited",
      error.message,
      "send fewer requests, and this one again after Retry-After seconds",
      retryAfterSeconds
    )
  if (status < 500)
    return new Problem(status, "invalid_request", error.message, "compare the request with its description in /docs")
  return new Problem(
    500,
    "internal_error",
    "an internal error occurred",
    "send the request again; if the error persists, report it with the trace id"
  )
}

const isAggregatePath = ({ url }: FastifyRequest): boolean => url.startsWith("/v1/aggregates/")
/** Answers a request with a problem. `isDetailed`: as `application/problem+json`. */
const answerProblem = (request: FastifyRequest, reply: FastifyReply, problem: Problem, isDetailed: boolean) => {
  const { traceId } = traceFor(request)
  return reply
    .code(problem.status)
    .type(isDetailed ? problemJson : "application/json; charset=utf-8")
    .send(JSON.stringify(isDetailed ? problemDetails(problem, traceId) : problemBody(problem, traceId)))
}
/** Logs an error of which the client gets the trace id alone. */
type Report = (error: Error, traceId: string) => void
const reporting =
  (context: Context.Context<never>): Report =>
  (error, traceId) =>
    void Effect.runForkWith(context)(Effect.logError(`the request with the trace id ${traceId} failed`, error))
/** Answers errors: as `application/problem+json` on the routes of aggregates. */
const errorHandler =
  (metrics: Metrics, limits: Limits, report: Report, isAggregate: boolean) =>
  (error: FastifyError | Problem, request: FastifyRequest, reply: FastifyReply) => {
    const problem = problemOf(error, limits, isAggregate)
    if (problem.code === "internal_error") report(error, traceFor(request).traceId)
    // one whose client has gone is not answered, or was by the parser
    if (!request.raw.socket.destroyed) metrics.refused(problem.code)
    // the rest of the body is not read
    if (problem.status === 408) reply.header("connection", "close")
    if (isPassing(problem.status) && takesEventsAlone(request)) {
      const { code: reason, message, retryAfter = retryAfterSeconds, try: advice } = problem
      const frames = laterFrames({ reason, message, try: advice }, retryAfter)
      return reply.code(200).type(contentType).header("cache-control", "no-store").send(frames)
    }
    if (problem.retryAfter !== undefined && !reply.hasHeader("retry-after"))
      reply.header("retry-after", problem.retryAfter)
    return answerProblem(request, reply, problem, isAggregate || (request.is404 && isAggregatePath(request)))
  }
/** Answers a request whose path cannot be decoded: no route takes it. */
const badUrl = (metrics: Metrics) => (_: FastifyError, request: FastifyRequest, reply: FastifyReply) => {
  const message = `the path ${JSON.stringify(request.url.split("?", 1)[0]!.slice(0, 200))} is not valid`
  const problem = new Problem(400, "invalid_url", message, "percent-encode its parts as UTF-8, such as %2F for a slash")
  metrics.refused(problem.code)
  void answerProblem(request, reply, problem, isAggregatePath(request))
}
const answers = (app: FastifyInstance, metrics: Metrics, limits: Limits, report: Report): void => {
  app.setErrorHandler(errorHandler(metrics, limits, report, false))
  app.addHook("onSend", (request, reply, payload, done) => {
    reply.header("traceparent", traceFor(request).traceparent)
    done(null, payload)
  })
}

/** Adds the console. While a process starts, its page shows what the process waits for. */
const openConsole = async (app: FastifyInstance) => {
  ;(await import("./console/routes.ts")).consolePage(app)
  return []
}
const noRoutes = () => Promise.resolve([])

interface Built {
  readonly app: FastifyInstance
  /** What first requests would wait for, once the server listens. */
  readonly preparations: ReadonlyArray<() => unknown>
  readonly close: () => Promise<void>
}

/** Adds routes beside those of health. Resolves to what prepares them for their first requests. */
type Routes = (app: FastifyInstance, metrics: Metrics) => Promise<ReadonlyArray<() => unknown>>
/** The Fastify application of a server, with TLS if there are texts of its files, and without routes. */
const bare = (
  { logLevel = "silent", tls, trustedProxies = [] }: ServerOptions,
  limits: Limits,
  metrics: Metrics,
  hasStreams: boolean,
  texts: TlsTexts | undefined
): FastifyInstance => {
  const parserErrors = answerParserErrors(metrics)
  const http = {
    // else Node answers a request without Host by itself, with an empty body, and one that becomes a WebSocket not at all
    requireHostHeader: false,
    headersTimeout: limits.headersMs,
    connectionsCheckingInterval: 1_000,
    shouldUpgradeCallback: (request: IncomingMessage) => hasStreams && shouldUpgrade(request)
  }
  const common = {
    logger: logLevel === "silent" ? false : { level: logLevel },
    forceCloseConnections: "idle",
    requestTimeout: limits.requestMs,
    // closing.ts answers requests while the server closes, in the same form as all other problems
    return503OnClosing: false,
    bodyLimit: limits.bodyBytes,
    clientErrorHandler: parserErrors.clientError,
    frameworkErrors: badUrl(metrics),
    rewriteUrl: takeTarget,
    trustProxy: trustedProxies.length === 0 ? false : [...trustedProxies],
    // the ids of aggregates are checked by their routes; a request line is limited by Node
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 16_384 }
  } as const
  const app =
    tls === undefined || texts === undefined
      ? Fastify({ ...common, http })
      : (Fastify({
          ...common,
          https: { ...http, ...serverOptionsOf(texts, tls, limits.headersMs) }
        }) as unknown as FastifyInstance)
  // more headers than that would be dropped, Host and Authorization among them; their bytes have a limit
  app.server.maxHeadersCount = 0
  parserErrors.listen(app.server)
  return app
}
/** Builds a server, which does not listen yet. */
const build = async (
  options: ServerOptions,
  limits: Limits,
  context: Context.Context<never>,
  routes: Routes,
  hasStreams: boolean,
  texts: TlsTexts | undefined
): Promise<Built> => {
  const { cors: origins = [], host = loopback, hosts = [], trustedProxies = [] } = options
  const metrics = metricsOf(context)
  const app = bare(options, limits, metrics, hasStreams, texts)
  // the schemas are documentation; the topics decide which events are valid
  app.setValidatorCompiler(() => () => true)
  app.decorateRequest("share", null)
  app.decorateRequest("trace", null)
  // the schemas of responses are documentation: an answer is never cut down to them
  app.setSerializerCompiler(() => (body) => JSON.stringify(body))
  // before all checks: it closes the connections of requests for WebSockets that these refuse
  if (hasStreams) await acceptWebSockets(app, metrics)
  const close = closerOf(app, limits.closeMs)
  app.addHook("onRequest", (request, reply, done) => {
    const problem = targetProblem(request)
    // a client that sends such a request may take more of its bytes for a request than the server does
    if (problem !== undefined) reply.header("connection", "close")
    done(problem)
  })
  if (isLoopbackName(host)) {
    const problemOfSite = siteCheck({ hosts, origins })
    app.addHook("onRequest", (request, _reply, done) => {
      // what the client asked for, which a trusted proxy says
      const headers =
        trustedProxies.length === 0 || request.headers.host === undefined
          ? request.headers
          : { ...request.headers, host: request.host }
      done(problemOfSite(request.method, headers, request.protocol))
    })
  }
  app.addHook("onRequest", (request, _reply, done) =>
    done(repeatedHeader(request.raw.rawHeaders) ?? undecodableQuery(request.url))
  )
  const { refuseOthers } = routeMethods(app, options.isStarting === true)
  // before all routes, also those of plugins, which else answer errors in a form of their own
  answers(app, metrics, limits, reporting(context))
  await allowOrigins(app, origins)
  guard(app, options.access ?? openAccess)
  refuseOthers()
  refuseUnknownParameters(app)
  await protect(app, options.rateLimits ?? {}, limits)
  if (options.pressure !== undefined) shedLoad(app, options.pressure)
  const run = Effect.runPromiseExitWith(context)
  /** The value of an effect, or what to answer if it dies. */
  const answerOf =
    <A>(effect: Effect.Effect<A>, failed: (error: string) => A) =>
    async (): Promise<A> => {
      const exit = await run(effect)
      return Exit.isSuccess(exit) ? exit.value : failed(Cause.pretty(exit.cause))
    }
  const parts = {
    ready: answerOf<Readiness>(options.ready ?? Effect.succeed({ ready: true }), (error) => ({ ready: false, error })),
    status: options.status && answerOf<SystemStatus>(options.status, (error) => ({ healthy: false, error })),
    moreMetrics: answerOf(options.moreMetrics ?? Effect.succeed(""), () => ""),
    metrics
  }
  // the documentation is one of these routes, and has only routes that are registered after it
  const preparations = await routes(app, metrics)
  await app.register(async (inner) => health(inner, parts))
  return { app, preparations: [metrics.text, ...preparations], close }
}
/** The routes of an application, by the roles in the options. */
const routesOf =
  (options: ServeOptions, limits: Limits, context: Context.Context<Log>): Routes =>
  async (app, metrics) => {
    const roles = options.roles ?? ["gateway", "api"]
    const catalog = catalogOf(options.application, limits.maxAheadMs)
    const log = Context.get(context, Log)
    const held = new BodyMemory(limits.heldBytes, limits.bodySlowMs)
    const { eventStore } = options
    const aggregates = eventStore === undefined ? new Map<string, never>() : aggregatesByName(options.application)
    const hasCommands = roles.includes("gateway")
    const viewParts = options.views && {
      application: options.application,
      views: declaredViews(options.application),
      reader: options.views,
      limits
    }
    const preparations: Array<() => unknown> = []
    if (roles.includes("api")) {
      const { components, paths } = describe(aggregates, { commands: hasCommands, reads: true })
      // what the database has now; without an answer, what is declared
      const columns = await viewParts?.reader.columns([...viewParts.views.keys()]).catch(() => undefined)
      const ofViews = viewParts && describeViews(viewParts.views, columns ?? new Map(), options.changes !== undefined)
      await openConsole(app)
      const more = { paths: { ...paths, ...ofViews?.paths }, components }
      const isRequired = options.access?.isRequired === true
      preparations.push(await documentation(app, options.application.name, isRequired, more))
    }
    if (eventStore !== undefined)
      await app.register(async (inner) => {
        inner.setErrorHandler(errorHandler(metrics, limits, reporting(context), true))
        const bounds = (topic: string) => boundsOf({ log, context }, topic)
        const parts = { aggregates, context: Context.add(context, EventStore, eventStore), held, limits, bounds }
        if (hasCommands) commands(inner, parts)
        if (roles.includes("api")) reads(inner, parts)
      })
    if (roles.includes("gateway")) {
      const append = async (topic: string, records: Parameters<typeof log.append>[1]): Promise<Appended> =>
        Effect.runPromiseWith(context)(
          Effect.match(log.append(topic, records), {
            onSuccess: (positions): Appended => ({ _tag: "Positions", positions }),
            onFailure: (error): Appended => ({ _tag: "Failed", error })
          })
        )
      await app.register(async (inner) =>
        gateway(inner, {
          catalog,
          checker: new Checker(catalog, limits),
          appender: new Appender(append, limits),
          partitions: partitionsOf(log, context),
          held,
          limits,
          metrics
        })
      )
    }
    if (roles.includes("api")) {
      const parts = { catalog, log, context, limits, metrics }
      await app.register(async (inner) => {
        credentialRoute(inner)
        const add = streamRoutes(inner, parts)
        streams(add, parts)
        records(inner, parts)
        if (viewParts === undefined) return
        views(inner, viewParts)
        if (options.changes !== undefined) changes(inner, { ...viewParts, source: options.changes, add })
      })
      const { status = Effect.succeed({ healthy: false, reason: "the server has no status" }), system } = options
      if (system !== undefined) await app.register(async (inner) => operations(inner, { system, status, held, limits }))
    }
    return preparations
  }

const listen = (app: FastifyInstance, host: string, port: number): Effect.Effect<number, PortInUse | ListenFailed> =>
  Effect.tryPromise({
    try: async () => {
      await app.listen({ host, port })
      const address = app.server.address()
      return typeof address === "object" && address !== null ? address.port : port
    },
    catch: (cause) => listenError(host, port, cause)
  })

const serving = Effect.fnUntraced(function* (
  options: ServerOptions,
  limits: Limits,
  routes: Routes,
  hasStreams: boolean
): Effect.fn.Return<Served, ServeError, Scope.Scope> {
  const context = yield* Effect.context<never>()
  const { host = loopback, tls } = options
  const texts =
    tls &&
    (yield* Effect.try({
      try: () => readTls(tls),
      catch: (error) => (error instanceof TlsUnusable ? error : new TlsUnusable({ message: String(error), try: "" }))
    }))
  const { app, preparations } = yield* Effect.acquireRelease(
    Effect.promise(() => build(options, limits, context, routes, hasStreams, texts)),
    ({ close }) => Effect.promise(close)
  )
  if (tls !== undefined && texts !== undefined) {
    const report = ({ level, message }: TlsReport) =>
      Effect.runForkWith(context)(level === "info" ? Effect.logInfo(message) : Effect.logWarning(message))
    const server = app.server as unknown as TlsServer
    const onAuthorities = "Deno" in globalThis ? guardHandshakes(server, limits.headersMs) : undefined
    const follow = () => followTls(server, tls, texts, report, onAuthorities)
    yield* Effect.acquireRelease(Effect.sync(follow), (stop) => Effect.sync(stop))
  }
  const port = yield* listen(app, host, options.port)
  yield* Effect.forkScoped(prepare(preparations))
  return { url: `${tls === undefined ? "http" : "https"}://${host.includes(":") ? `[${host}]` : host}:${port}`, port }
})

/**
 * Serves an application until the scope closes. Then new requests are refused, running ones have `closeMs` to finish, and HTTP streams end.
 * Fails with `PortInUse` if another program uses the port, with `ListenFailed` if listening fails otherwise, and with `TlsUnusable` if its
 * certificate or its key cannot be used.
 */
export const serve = (options: ServeOptions): Effect.Effect<Served, ServeError, Log | Scope.Scope> =>
  Effect.gen(function* () {
    const limits: Limits = { ...defaultLimits, ...options.limits }
    const hasStreams = options.roles?.includes("api") ?? true
    return yield* serving(options, limits, routesOf(options, limits, yield* Effect.context<Log>()), hasStreams)
  })
/**
 * Serves `/healthz`, `/readyz` and `/metrics` only, until the scope closes; with `isStarting` the console, too, which goes on by itself once the
 * process has started. Needs no log.
 */
export const serveHealth = (
  options: Omit<ServerOptions, "limits" | "logLevel">
): Effect.Effect<Served, ServeError, Scope.Scope> =>
  serving(options, defaultLimits, options.isStarting === true ? openConsole : noRoutes, false)
