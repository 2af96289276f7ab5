// The routes of views: `GET /v1/views` lists them, and `GET /v1/views/NAME` returns a page of rows.
import { createHash } from "node:crypto"
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify"
import type { Application } from "../../model/application.ts"
import type { Principal } from "../access/principal.ts"
import type { Limits } from "../http/limits.ts"
import { single } from "../http/parameters.ts"
import { Problem, retryAfterSeconds } from "../http/problem.ts"
import { Slots } from "../http/slots.ts"
import { assertByTenant, type DeclaredView, readableNames, tenantOf, unknownView, type ViewColumn } from "./catalog.ts"
import { cursorText, pageQueryOf, type PageQuery } from "./page-query.ts"
import { pageStatement, type TenantOfRows } from "./page-sql.ts"
import { type PageRow, sqlErrorOf, type ViewReader } from "./reader.ts"
import { dependenciesOf, waitFor } from "./waiting.ts"

/** What the routes need. */
export interface ViewParts {
  readonly application: Application.Any
  readonly views: ReadonlyMap<string, DeclaredView>
  readonly reader: ViewReader
  readonly limits: Limits
}

const jsonType = "application/json; charset=utf-8"
const readers = { scope: "read" } as const
/** For how long columns are remembered, in milliseconds: they change when a version is promoted. */
const rememberMs = 1_000

/** The answer to a read that failed. A value that passed the checks and that PostgreSQL refuses is the client's. */
export const problemOf = (cause: unknown, { viewMs }: Limits): unknown => {
  const error = sqlErrorOf(cause)
  if (error === undefined) return cause
  if (error.code === "57014")
    return new Problem(
      503,
      "view_timeout",
      `the query took longer than ${viewMs} ms`,
      "filter by the first columns of the primary key, order by it, or create an index for the filter and the order"
    )
  if (error.code.startsWith("22"))
    return new Problem(400, "invalid_parameter", `PostgreSQL refuses a value: ${error.reason}`, "correct the value")
  if (error.code === "42501")
    return new Problem(
      500,
      "store_refused",
      `the role that reads views may not do so: ${error.reason.replace(/\. try: .*$/s, "")}`,
      "grant select on the view to the role of MILLRACE_READER_URL"
    )
  if (error.retryable)
    return new Problem(
      503,
      "store_unavailable",
      "the database does not answer",
      "send the request again after Retry-After seconds",
      retryAfterSeconds
    )
  return cause
}
/** A column or a view that is there no more: a version was promoted meanwhile. */
export const hasChanged = (cause: unknown): boolean =>
  ["42703", "42P01", "0A000"].includes(sqlErrorOf(cause)?.code ?? "")

/** The columns of all views, which are read at most once in `rememberMs`. */
export const rememberedColumns = ({ reader, views }: Pick<ViewParts, "reader" | "views">) => {
  let read: { readonly columns: ReturnType<ViewReader["columns"]>; readonly at: number } | undefined
  return (isFresh: boolean): ReturnType<ViewReader["columns"]> => {
    if (read !== undefined && !isFresh && performance.now() - read.at < rememberMs) return read.columns
    const own = { columns: reader.columns([...views.keys()]), at: performance.now() }
    read = own
    own.columns.catch(() => {
      if (read === own) read = undefined
    })
    return own.columns
  }
}

/** What `rememberedColumns` returns. */
export type ColumnsOfAll = ReturnType<typeof rememberedColumns>
/** The names of views that a principal may read. A principal with a tenant gets no names while the database does not answer. */
export const readableBy = async (
  views: ViewParts["views"],
  principal: Pick<Principal, "tenant">,
  columnsOfAll: ColumnsOfAll
): Promise<ReadonlyArray<string>> => {
  if (principal.tenant === undefined) return [...views.keys()]
  return readableNames(views, principal, await columnsOfAll(false).catch(() => new Map<string, never>()))
}
/** The view with a name. Rejects with a `Problem` 404 if the application declares none. */
export const knownView = async (
  views: ViewParts["views"],
  name: string,
  principal: Pick<Principal, "tenant">,
  columnsOfAll: ColumnsOfAll
): Promise<DeclaredView> => {
  const found = views.get(name)
  if (found !== undefined) return found
  throw unknownView(name, await readableBy(views, principal, columnsOfAll))
}

/** The page's end as a cursor; undefined if it is the last page. */
const nextOf = (view: DeclaredView, query: PageQuery, page: ReadonlyArray<PageRow>): string => {
  const last = page.at(-1)!.cursor
  const values = JSON.parse(last) as ReadonlyArray<string | null>
  if (view.key.length > 0) return cursorText(query, { values, sent: 0 })
  const equal = page.length - 1 - page.findLastIndex(({ cursor }) => cursor !== last)
  const isSame = equal === page.length && JSON.stringify(query.after?.values) === JSON.stringify(values)
  return cursorText(query, { values, sent: equal + (isSame ? query.after!.sent : 0) })
}

/** The cursor of the rows before a page, as JSON; null if there are none. */
const previousOf = (query: PageQuery, [first]: ReadonlyArray<PageRow>, isThere: boolean): string => {
  if (first === undefined || !isThere) return "null"
  const values = JSON.parse(first.cursor) as ReadonlyArray<string | null>
  return JSON.stringify(cursorText(query, { values, sent: 0, isBackwards: true }))
}

const etagOf = (body: string): string => `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`
/** Whether the client has the answer with this ETag. */
const isKnown = (header: string | undefined, etag: string): boolean =>
  header !== undefined && header.split(",").some((one) => one.trim() === "*" || one.trim().replace(/^W\//, "") === etag)
const answer = (request: FastifyRequest, reply: FastifyReply, body: string) => {
  const etag = etagOf(body)
  reply.header("etag", etag).header("cache-control", "private, no-cache")
  if (isKnown(request.headers["if-none-match"], etag)) return reply.code(304).send()
  return reply.type(jsonType).send(body)
}

const described = (view: DeclaredView, columns: ReadonlyArray<ViewColumn>) => ({
  name: view.name,
  kind: view.kind,
  written_by: view.writtenBy,
  key: view.key,
  tenant: tenantOf(view, columns) ?? null,
  columns,
  ...(view.window && { window: view.window })
})

/** The problem of a view that the database does not have. */
export const notReady = (name: string): Problem =>
  new Problem(
    404,
    "view_not_ready",
    `${name} is not there yet: readers see a new read model once its version is promoted`,
    "see millrace status, and send the request again later"
  )
/** Whose rows a request may read; undefined: all. Throws a `Problem` 403 if the rows do not say whose they are. */
export const tenantOfRows = (
  { principal }: { readonly principal: Pick<Principal, "tenant"> },
  view: DeclaredView,
  columns: ReadonlyArray<ViewColumn>
): TenantOfRows | undefined =>
  principal.tenant === undefined ? undefined : { column: assertByTenant(view, columns), name: principal.tenant }

/** Adds `GET /v1/views` and `GET /v1/views/:name`. */
export const views = (app: FastifyInstance, parts: ViewParts): void => {
  const { application, limits, reader, views: declared } = parts
  const columnsOfAll = rememberedColumns(parts)
  const [reading, waiting] = [new Slots(limits.readingViews), new Slots(limits.waiting)]

  app.get("/v1/views", { schema: { hide: true }, config: readers }, async (request, reply) => {
    const columns = await columnsOfAll(false).catch((error: unknown) => {
      throw problemOf(error, limits)
    })
    const found = readableNames(declared, request.principal, columns).map((name) =>
      described(declared.get(name)!, columns.get(name) ?? [])
    )
    const withheld = { table: 0, window: 0, view: 0 }
    for (const { kind } of declared.values()) withheld[kind]++
    for (const { kind } of found) withheld[kind]--
    return answer(request, reply, JSON.stringify({ views: found, withheld }))
  })

  const page = async (request: FastifyRequest, view: DeclaredView, isFresh: boolean): Promise<string> => {
    const columns = (await columnsOfAll(isFresh)).get(view.name)
    if (columns === undefined) throw notReady(view.name)
    const tenant = tenantOfRows(request, view, columns)
    const query = pageQueryOf(request.query as Readonly<Record<string, unknown>>, view, columns)
    const { isCut, rows } = await reader.rows(pageStatement(view, columns, query, tenant), limits.viewBytes)
    const isBackwards = query.after?.isBackwards === true
    const hasMore = isCut || rows.length > query.limit
    const shown = isBackwards ? rows.slice(0, query.limit).toReversed() : rows.slice(0, query.limit)
    const next = (isBackwards ? shown.length > 0 : hasMore) ? JSON.stringify(nextOf(view, query, shown)) : "null"
    const hasPrevious = query.after !== undefined && view.key.length > 0
    const previous = hasPrevious ? `,"previous":${previousOf(query, shown, !isBackwards || hasMore)}` : ""
    return `{"view":${JSON.stringify(view.name)},"rows":[${shown.map(({ row }) => row).join(",")}],"next":${next}${previous}}`
  }

  app.get(
    "/v1/views/:name",
    { schema: { hide: true }, config: { ...readers, parameters: "own" } },
    async (request, reply) => {
      const { name } = request.params as { readonly name: string }
      const view = await knownView(declared, name, request.principal, columnsOfAll)
      const token = single((request.query as Readonly<Record<string, unknown>>)["waitFor"], "waitFor")
      let release: (() => void) | undefined
      try {
        if (token !== undefined) {
          release = waiting.take(request.principal, "requests wait for projections")
          await waitFor(reader, token, dependenciesOf(application, view), {
            waitMs: limits.waitMs,
            isGone: () => request.raw.destroyed
          })
          release()
        }
        release = reading.take(request.principal, "requests read views")
        const body = await page(request, view, false).catch((error: unknown) => {
          if (hasChanged(error)) return page(request, view, true)
          throw error
        })
        return answer(request, reply, body)
      } catch (error) {
        throw problemOf(error, limits)
      } finally {
        release?.()
      }
    }
  )
}
