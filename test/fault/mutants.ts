// Stores that lack one protection each: what the store sends is rewritten on the way to PostgreSQL. Checks that pass for them prove nothing.
import * as PostgresStore from "../../src/postgres/store/store.ts"
import type { Sql } from "../../src/postgres/client/client.ts"
import type { Claim, Store } from "../../src/runner/store.ts"

/** Makes a store over a pool: the real one, or a mutant. */
export type MakeStore = (sql: Sql) => Store["Service"]
export const real: MakeStore = (sql) => PostgresStore.make(sql)

/** A pool whose statements are seen, or changed, before they are sent. Tagged templates may be answered here. */
export const watched = (
  sql: Sql,
  watch: {
    readonly statement?: (text: string) => string
    readonly answer?: (text: string) => ReadonlyArray<object> | undefined
    readonly failed?: (code: string, again: () => Promise<unknown>) => Promise<unknown> | undefined
  }
): Sql =>
  new Proxy(sql, {
    apply: (target, self, args: [TemplateStringsArray, ...Array<unknown>]) => {
      const strings = args[0]
      const answer = Array.isArray(strings) && "raw" in strings ? watch.answer?.(strings.join(" ")) : undefined
      return answer === undefined ? Reflect.apply(target, self, args) : Promise.resolve(answer)
    },
    get: (target, name) => {
      if (name !== "unsafe") return Reflect.get(target, name) as unknown
      return (text: string, ...rest: [never, never]) => {
        const rewritten = watch.statement?.(text) ?? text
        const send = async () => await target.unsafe(rewritten, ...rest)
        return send().catch((error: unknown) => {
          const { code = "" } = error as { readonly code?: string }
          const handled = isCommit(text) ? watch.failed?.(code, send) : undefined
          if (handled === undefined) throw error
          return handled
        })
      }
    }
  })
const isCommit = (text: string) => text.includes("update millrace.progress set commit_no = commit_no + 1")

const replaced = (text: string, pattern: RegExp, by: string): string => {
  const result = text.replaceAll(pattern, by)
  if (result === text) throw new Error(`the mutant changes nothing: no ${pattern} in ${text}`)
  return result
}
const rewriting =
  (rewrite: (text: string, claim: Claim) => string): MakeStore =>
  (sql) => ({
    ...PostgresStore.make(sql),
    commit: (projection, claim, changes) => {
      const statement = (text: string) => (isCommit(text) ? rewrite(text, claim) : text)
      return PostgresStore.make(watched(sql, { statement })).commit(projection, claim, changes)
    }
  })

const fence = /and incarnation = (\$\d+)::uuid and commit_no = (\$\d+)::int8/g
/** Nothing tells one claimant's commit from another's. */
export const withoutFence = rewriting((text) =>
  replaced(text, fence, "and $1::uuid is not null and $2::int8 is not null")
)
/** The position is all that is compared. */
export const positionAlone = rewriting((text, claim) =>
  replaced(text, fence, `and $1::uuid is not null and $2::int8 is not null and next_position = ${claim.position}`)
)
/** The claimant is compared, and not which of its commits this is. */
export const incarnationAlone = rewriting((text) =>
  replaced(text, fence, "and incarnation = $1::uuid and $2::int8 is not null")
)
/** A lost reply is answered by sending again; no row, as ever, is taken for a fence. Nobody asks what became of the first. */
export const plainResend: MakeStore = (sql) =>
  PostgresStore.make(
    watched(sql, {
      answer: (text) => (/from millrace\.progress .*for update/s.test(text) ? [] : undefined),
      failed: (code, again) => (code.startsWith("CONNECTION") || code === "57P01" ? again() : undefined)
    })
  )
/** The same, by a statement that does not say which commit it is. */
export const resendUnnumbered: MakeStore = (sql) =>
  PostgresStore.make(
    watched(sql, {
      statement: (text) =>
        isCommit(text) ? replaced(text, fence, "and incarnation = $1::uuid and $2::int8 is not null") : text,
      failed: (code, again) => (code.startsWith("CONNECTION") || code === "57P01" ? again() : undefined)
    })
  )
/** Rows are written as they come, and the parts of a statement as the planner likes. */
export const unordered = rewriting((text) =>
  replaced(
    replaced(text, / order by u\.[^)]*\)/g, ")"),
    /, \(select where \(select count\(\*\) from w\d+\) >= 0\) as after_w\d+/g,
    ""
  )
)
