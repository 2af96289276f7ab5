// Opens what a client asks of the changes of a view, and follows it, for the routes and the command line.
import { single } from "../http/parameters.ts"
import { Problem, retryAfterSeconds } from "../http/problem.ts"
import { Slots } from "../http/slots.ts"
import { isToken } from "../http/token.ts"
import type { Connection } from "../connection/connection.ts"
import type { Principal } from "../access/principal.ts"
import type { DeclaredView, ViewColumn } from "../views/catalog.ts"
import { pageQueryOf, type PageQuery } from "../views/page-query.ts"
import {
  knownView,
  notReady,
  problemOf,
  readableBy,
  rememberedColumns,
  tenantOfRows,
  type ViewParts
} from "../views/routes.ts"
import { dependenciesOf, waitFor } from "../views/waiting.ts"
import { type Beginning, digestOf, Feeds } from "./feeds.ts"
import { ChangeFollower } from "./follower.ts"
import type { ChangeSource } from "./source.ts"
import { checkStatement, type FollowedView, type RowFilter } from "./statements.ts"

/** What changes are read with. */
export interface ChangeParts extends ViewParts {
  readonly source: ChangeSource
}
/** What a client asks for. */
export interface AskedChanges {
  readonly name: string
  /** `from`, `waitFor` and filters, as parameters of a request. */
  readonly query: Readonly<Record<string, unknown>>
  /** The last id that the client has; it goes before `from`. */
  readonly last: string | undefined
  readonly principal: Pick<Principal, "name" | "tenant" | "isAnonymous">
  readonly isGone: () => boolean
}
/** What was opened for a client. */
export interface OpenedChanges {
  readonly followed: FollowedView
  readonly filter: RowFilter
  readonly order: PageQuery["order"]
  readonly digest: string
  readonly beginning: Beginning
}
/** Opens changes, and follows them. */
export interface ChangeOpener {
  /** Rejects with a `Problem`. What it resolves to needs no closing. */
  readonly open: (asked: AskedChanges) => Promise<OpenedChanges>
  readonly follow: (opened: OpenedChanges, connection: Connection) => ChangeFollower
}

/** The problem of a view whose rows cannot be followed. `readable`: the names of views that the client may read. */
const notFollowable = (
  { name }: DeclaredView,
  views: ReadonlyMap<string, DeclaredView>,
  readable: ReadonlyArray<string>
): Problem => {
  const tables = readable.filter((one) => views.get(one)?.kind !== "view")
  const names = tables.length > 10 ? [...tables.slice(0, 10), "…"] : tables
  const which = names.length === 0 ? "" : ` (of ${names.join(", ")})`
  return new Problem(
    400,
    "not_followable",
    `${name} is a declared view: it is a query, whose rows have no key, and PostgreSQL does not say which of them a change of a table changes`,
    `follow the tables that it reads${which}, and read /v1/views/${name} again when they change`
  )
}

/** What a promise resolves to. Rejects with a `Problem` 503 if that takes too long: a database that does not answer may keep a query waiting for minutes. */
const within = async <A>(opening: Promise<A>, ms: number): Promise<A> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const problem = new Problem(
      503,
      "store_unavailable",
      `the database has not answered for ${ms / 1_000} s`,
      "send the request again after Retry-After seconds",
      retryAfterSeconds
    )
    timer = setTimeout(() => reject(problem), ms)
  })
  return Promise.race([opening, late]).finally(() => clearTimeout(timer))
}

/** Returns what opens the changes of an application's views. Clients of one opener share what is read of a view. */
export const changeOpener = ({ application, limits, reader, source, views }: ChangeParts): ChangeOpener => {
  const columnsOfAll = rememberedColumns({ reader, views })
  const feeds = new Feeds(source, limits)
  const waiting = new Slots(limits.waiting)
  /** Rejects with a `Problem` 404 if the database does not have the view. */
  const columnsOf = async ({ name }: DeclaredView): Promise<ReadonlyArray<ViewColumn>> => {
    const columns = (await columnsOfAll(false)).get(name) ?? (await columnsOfAll(true)).get(name)
    if (columns === undefined) throw notReady(name)
    return columns
  }
  const open = async ({ isGone, last = "", name, principal, query: asked }: AskedChanges): Promise<OpenedChanges> => {
    const view = await knownView(views, name, principal, columnsOfAll)
    if (view.kind === "view") {
      // first whether the client may read it at all: what is said of a view is for those who may
      if (principal.tenant !== undefined) tenantOfRows({ principal }, view, await columnsOf(view))
      throw notFollowable(view, views, await readableBy(views, principal, columnsOfAll))
    }
    const { from, ...query } = asked
    for (const parameter of ["order", "limit", "after"])
      if (query[parameter] !== undefined)
        throw new Problem(
          400,
          "invalid_parameter",
          `the parameter ${parameter} is for pages, and changes come in the order in which they were made`,
          `leave ${parameter} out; a column of this name is filtered as ${parameter}.eq`
        )
    const start = last === "" ? (single(from, "from") ?? "earliest") : last
    // a stream that starts at a token begins with all rows: changes alone would lack those between that write and the start of the stream
    const tokens = [
      ["waitFor", single(query["waitFor"], "waitFor")] as const,
      ["from", isToken(start) ? start : undefined] as const
    ]
    for (const [parameter, token] of tokens) {
      if (token === undefined) continue
      const release = waiting.take(principal, "streams wait for projections")
      await waitFor(reader, token, dependenciesOf(application, view), {
        waitMs: limits.waitMs,
        isGone,
        parameter
      }).finally(release)
    }
    const columns = await columnsOf(view)
    const followed = { view, columns }
    const tenant = tenantOfRows({ principal }, view, columns)
    const { filters, order } = pageQueryOf(query, view, columns)
    const filter = { filters, tenant }
    // one that PostgreSQL refuses would fail for all clients
    if (filters.length > 0) await source.check(checkStatement(followed, filter))
    const digest = digestOf(followed, filter)
    const beginning = await feeds.beginning(followed, digest, isToken(start) ? "earliest" : start)
    return { followed, filter, order, digest, beginning }
  }
  return {
    open: (asked) =>
      within(open(asked), limits.openMs).catch((cause: unknown) => {
        throw problemOf(cause, limits)
      }),
    follow: ({ beginning, digest, filter, followed, order }, connection) =>
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
  }
}
