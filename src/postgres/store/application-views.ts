// Creates the views that an application declares over its read models.
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import type { View } from "../../model/read-model.ts"
import { Mismatch } from "../../runner/store.ts"
import { query, type Session, type Sql, SqlError, transaction } from "../client/client.ts"
import { lockProjections } from "./builds.ts"
import { quote } from "../client/columns.ts"

/** The beginning of the comments by which views of applications are known. */
const marked = "millrace view "
const codes = { columnsChanged: "42P16", hasDependents: "2BP01" } as const

const changeView = Effect.fnUntraced(function* (tx: Session, { name, query: text }: View, replaces: boolean) {
  const note = `${marked}${createHash("sha256").update(text).digest("hex")}`
  const [found] = yield* query(
    `look for the view ${name}`,
    () => tx<Array<{ readonly note: string | null }>>`select obj_description(oid, 'pg_class') as note from pg_class
      where relnamespace = 'public'::regnamespace and relname = ${name}`
  )
  if (found?.note === note) return
  if (found !== undefined && !(found.note ?? "").startsWith(marked))
    return yield* new Mismatch({
      what: `view ${name}`,
      reason: `the database has a table or a view of this name that the application did not create; rename the view`
    })
  const view = `public.${quote(name)}`
  const statements = [
    ...(found === undefined || replaces ? [] : [`drop view ${view}`]),
    `create or replace view ${view} as ${text}`,
    `comment on view ${view} is '${note}'`
  ]
  yield* query(`create the view ${name}`, () => tx.unsafe(statements.join(";\n")))
})

/**
 * Creates the views that do not exist, and changes those whose query has changed; a view whose columns change otherwise than by new ones behind them is
 * created again, without its grants. Views that the application no longer declares stay. Fails with `Mismatch`, which names the view, if PostgreSQL
 * refuses a query, if another relation has the name, or if something depends on a view that has to be created again.
 */
export const createViews = (sql: Sql, views: ReadonlyArray<View>): Effect.Effect<void, SqlError | Mismatch> =>
  Effect.forEach(
    views,
    (view) => {
      const change = (replaces: boolean) =>
        transaction(sql, (tx) => Effect.andThen(lockProjections(tx), changeView(tx, view, replaces)))
      return change(true).pipe(
        Effect.catchIf(
          (error) => error instanceof SqlError && error.code === codes.columnsChanged,
          () => change(false)
        ),
        Effect.catchIf(
          (error) => error instanceof SqlError && (error.code === codes.hasDependents || error.code.startsWith("42")),
          ({ message }) =>
            Effect.fail(new Mismatch({ what: `view ${view.name}`, reason: `PostgreSQL refuses it: ${message}` }))
        )
      )
    },
    { discard: true }
  )
