// Promotions without one of their protections: functions of the database and statements of commits, changed for a test. Checks must fail for them.
import * as Effect from "effect/Effect"
import { query, type Sql } from "../../src/postgres/client/client.ts"
import { watched } from "./mutants.ts"

/** A protection that is removed: from a function of the database, or from the statements of commits. */
export interface RemovedProtection {
  readonly name: string
  readonly function?: string
  readonly find: string | RegExp
  readonly replace: string
}

const changed = (text: string, { find, name, replace }: RemovedProtection): string => {
  const result = text.replaceAll(typeof find === "string" ? find : new RegExp(find, "g"), replace)
  if (result === text) throw new Error(`the mutant "${name}" changes nothing in ${text}`)
  return result
}

/** Removes protections from functions of a database. */
export const removeFrom = (sql: Sql, mutants: ReadonlyArray<RemovedProtection>) =>
  Effect.forEach(
    mutants.filter((mutant) => mutant.function !== undefined),
    (mutant) =>
      query(`change ${mutant.function}`, async () => {
        const [row] = await sql<Array<{ text: string }>>`
          select pg_get_functiondef(${`millrace.${mutant.function}`}::regproc) as text`
        await sql.unsafe(changed(row!.text, mutant))
      }),
    { discard: true }
  )
/** A pool over which commits are sent without the protections. */
export const commitsWithout = (sql: Sql, mutants: ReadonlyArray<RemovedProtection>): Sql =>
  watched(sql, {
    statement: (text) =>
      text.includes("fence as (update millrace.progress")
        ? mutants.filter((mutant) => mutant.function === undefined).reduce(changed, text)
        : text
  })

const flip = "promote_flip"
/** Fences do not look where the live build is. */
export const noBound: RemovedProtection = {
  name: "followers are not held back",
  find: /\(\w+\.mode <> 'follower' or [^ ]+ <= coalesce\(\(select l\.next_position .*?\n.*?\n\s+where v\.projection = \w+\.projection\), millrace\.own_bound\(.*?\)\)\)/,
  replace: "true"
}
export const boundOfLive: RemovedProtection = {
  name: "followers look where a live partition is, and not where a frozen one is",
  find: /where v\.projection = (\w+)\.projection\)/,
  replace: "where v.projection = $1.projection and l.mode = 'live')"
}
export const writesShared: RemovedProtection = {
  name: "followers write shared tables",
  find: "(select * from fence where mode <> 'follower') fence",
  replace: "fence"
}
export const forgetsSequence: RemovedProtection = {
  name: "the commit that ends a freeze does not count its messages",
  find: /case when (\w+)\.mode <> 'follower' then/,
  replace: "case when $1.mode = 'live' then"
}
export const staysFrozen: RemovedProtection = {
  name: "a freeze never ends by itself",
  find: /or \w+\.frozen_until < clock_timestamp\(\)/,
  replace: "or false"
}
export const notEqual: RemovedProtection = {
  name: "the switch does not compare positions",
  function: flip,
  find: "when n_position <> o_position then",
  replace: "when false then"
}
export const noHandover: RemovedProtection = {
  name: "the stream's sequence is not handed over",
  function: flip,
  find: ", outbox_seq = o.outbox_seq",
  replace: ""
}
export const keepsIncarnation: RemovedProtection = {
  name: "the old build keeps its incarnation",
  function: flip,
  find: "incarnation = gen_random_uuid(), commit_no = commit_no + 1",
  replace: "commit_no = commit_no"
}
export const noDeadline: RemovedProtection = {
  name: "the switch does not look whether the freeze is over",
  function: flip,
  find: "when (frozen_until > clock_timestamp()) is not true then",
  replace: "when false then"
}
