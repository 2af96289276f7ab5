// Mutants of the store, which lack one protection each: their statements are rewritten on the way to PostgreSQL. Checks must fail for them.
import * as PostgresStore from "../../src/postgres/store/store.ts"
import type { Sql } from "../../src/postgres/client/client.ts"
import type { Claim, Store } from "../../src/runner/store.ts"

/** Creates a store over a pool: the real one, or a mutant. */
export type MakeStore = (sql: Sql) => Store["Service"]
export const real: MakeStore = (sql) => PostgresStore.make(sql)

/** A pool whose statements are observed or changed before they are sent. Tagged templates may be answered without being sent. */
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
/** The fence compares nothing. */
export const withoutFence = rewriting((text) =>
  replaced(text, fence, "and $1::uuid is not null and $2::int8 is not null")
)
/** The fence compares the position alone. */
export const positionAlone = rewriting((text, claim) =>
  replaced(text, fence, `and $1::uuid is not null and $2::int8 is not null and next_position = ${claim.position}`)
)
/** The fence compares the incarnation, and not the number of the commit. */
export const incarnationAlone = rewriting((text) =>
  replaced(text, fence, "and incarnation = $1::uuid and $2::int8 is not null")
)
/** After a lost reply the statement is sent again at once, without asking whether the first one was committed. */
export const plainResend: MakeStore = (sql) =>
  PostgresStore.make(
    watched(sql, {
      answer: (text) => (/from millrace\.progress .*for update/s.test(text) ? [] : undefined),
      failed: (code, again) => (code.startsWith("CONNECTION") || code === "57P01" ? again() : undefined)
    })
  )
/** The same, with a fence that does not compare the number of the commit. */
export const resendUnnumbered: MakeStore = (sql) =>
  PostgresStore.make(
    watched(sql, {
      statement: (text) =>
        isCommit(text) ? replaced(text, fence, "and incarnation = $1::uuid and $2::int8 is not null") : text,
      failed: (code, again) => (code.startsWith("CONNECTION") || code === "57P01" ? again() : undefined)
    })
  )
/** Rows and the parts of a statement are written in no fixed order. */
export const unordered = rewriting((text) =>
  replaced(
    replaced(text, / order by u\.[^)]*\)/g, ")"),
    /, \(select where \(select count\(\*\) from w\d+\) >= 0\) as after_w\d+/g,
    ""
  )
)
