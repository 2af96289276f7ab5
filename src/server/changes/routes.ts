// The route that follows a view: `GET /v1/views/NAME/changes`, by server-sent events or a WebSocket.
import type { FastifyInstance, FastifyRequest } from "fastify"
import type { StreamAdder } from "../connection/routes.ts"
import { single } from "../http/parameters.ts"
import { Problem } from "../http/problem.ts"
import { type DeclaredView, knownView } from "../views/catalog.ts"
import { pageQueryOf, type PageQuery } from "../views/page-query.ts"
import { notReady, problemOf, rememberedColumns, tenantOfRows, type ViewParts } from "../views/routes.ts"
import { dependenciesOf, waitFor } from "../views/waiting.ts"
import { type Beginning, digestOf, Feeds } from "./feeds.ts"
import { ChangeFollower } from "./follower.ts"
import type { ChangeSource } from "./source.ts"
import { checkStatement, type FollowedView, type RowFilter } from "./statements.ts"

/** What the route needs. */
export interface ChangeParts extends ViewParts {
  readonly source: ChangeSource
  /** Adds a route of streams. */
  readonly add: StreamAdder
}

/** How often journals that nobody follows are ended, in milliseconds. */
const tidyMs = 60_000

/** What a request asks of a view. */
export interface OpenedChanges {
  readonly followed: FollowedView
  readonly filter: RowFilter
  readonly order: PageQuery["order"]
  readonly digest: string
  readonly beginning: Beginning
}

/** Throws a `Problem` 400 if the rows of a view cannot be followed. */
const assertFollowable = (view: DeclaredView, views: ReadonlyMap<string, DeclaredView>): void => {
  if (view.kind !== "view") return
  const tables = [...views.values()].filter(({ kind }) => kind !== "view").map(({ name }) => name)
  const names = tables.length > 10 ? [...tables.slice(0, 10), "…"] : tables
  throw new Problem(
    400,
    "not_followable",
    `${view.name} is a declared view: it is a query, whose rows have no key, and PostgreSQL does not say which of them a change of a table changes`,
    `follow the tables that it reads (of ${names.join(", ")}), and read /v1/views/${view.name} again when they change`
  )
}

/** Opens what requests ask for. Rejects with a `Problem`. */
export const changesOpener = ({ application, limits, reader, source, views }: Omit<ChangeParts, "add">) => {
  const columnsOfAll = rememberedColumns({ reader, views })
  const feeds = new Feeds(source, limits)
  const open = async (request: FastifyRequest): Promise<OpenedChanges> => {
    const view = knownView(views, (request.params as { readonly name: string }).name)
    assertFollowable(view, views)
    const { from, ...query } = request.query as Readonly<Record<string, unknown>>
    for (const name of ["order", "limit", "after"])
      if (query[name] !== undefined)
        throw new Problem(
          400,
          "invalid_parameter",
          `the parameter ${name} is for pages, and changes come in the order in which they were made`,
          `leave ${name} out; a column of this name is filtered as ${name}.eq`
        )
    const token = single(query["waitFor"], "waitFor")
    if (token !== undefined)
      await waitFor(reader, token, dependenciesOf(application, view), {
        waitMs: limits.waitMs,
        isGone: () => request.raw.destroyed
      })
    const columns = (await columnsOfAll(false)).get(view.name) ?? (await columnsOfAll(true)).get(view.name)
    if (columns === undefined) throw notReady(view.name)
    const followed = { view, columns }
    const tenant = tenantOfRows(request, view, columns)
    const { filters, order } = pageQueryOf(query, view, columns)
    const filter = { filters, tenant }
    // one that PostgreSQL refuses would fail for all clients
    if (filters.length > 0) await source.check(checkStatement(followed, filter))
    const digest = digestOf(followed, filter)
    const last = single(request.headers["last-event-id"], "Last-Event-ID") ?? ""
    const asked = last === "" ? (single(from, "from") ?? "earliest") : last
    return { followed, filter, order, digest, beginning: await feeds.beginning(followed, digest, asked) }
  }
  return {
    feeds,
    open: (request: FastifyRequest) =>
      open(request).catch((cause: unknown) => {
        throw problemOf(cause, limits)
      })
  }
}

/** Adds `GET /v1/views/:name/changes`. Open streams end when the server closes. */
export const changes = (app: FastifyInstance, parts: ChangeParts): void => {
  const { add, limits, source } = parts
  const { feeds, open } = changesOpener(parts)
  const tidy = setInterval(() => void source.tidy().catch(() => undefined), tidyMs).unref()
  app.addHook("onClose", async () => clearInterval(tidy))
  add({
    url: "/v1/views/:name/changes",
    schema: { hide: true },
    open,
    stream: ({ beginning, digest, filter, followed, order }, connection) =>
      new ChangeFollower({
        connection,
        limits,
        followed,
        filter,
        order,
        digest,
        source,
        position: beginning.position,
        because: beginning.because,
        inTurn: feeds.inTurn,
        use: () => feeds.use(followed, { ...beginning, digest, filter })
      })
  })
}
