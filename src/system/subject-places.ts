// Where the events about a subject are, and of which tenants they are.
import * as Effect from "effect/Effect"
import { subjectTag } from "../erasure/subject-keys.ts"
import { nameProblem } from "../log/acceptable.ts"
import { invalidOption } from "../model/options.ts"
import type { Sql } from "../postgres/client/client.ts"
import { run } from "../postgres/store/run.ts"
import { shown } from "../text/text.ts"

/** For which tenants a subject is erased or exported. With neither it must not have events of several. */
export interface TenantChoice {
  /** The tenant whose events they are. */
  readonly tenant?: string | undefined
  /** Whether those of all tenants are meant. */
  readonly allTenants?: boolean
}

/** Fails for a text that no subject can be. */
export const assertSubject = (subject: string) => {
  const problem = nameProblem(subject)
  if (problem !== undefined || subject.length > 1_000)
    return Effect.fail(invalidOption("subject", subject, "it must be a text of 1 to 1,000 characters without NUL"))
  return Effect.void
}

/** Where events about a subject are: each stream, with each tenant that they have there. */
export const placesOf = (sql: Sql, subject: string) =>
  run(
    "find the events of a subject",
    // the text of `meta` as the view log_record reads it: json has no form for some escapes
    () => sql<Array<{ aggregate: string; stream: string; tenant: string | null }>>`
    select distinct t.name as aggregate, b.entity as stream, r.m ->> 3 as tenant
    from millrace.log_batch b join millrace.log_topic t using (topic_id)
    cross join lateral json_array_elements((case when b.meta ~* '\\\\u(0000|d[89a-f])'
      then regexp_replace(b.meta, '(?<!\\\\)((?:\\\\\\\\)*)\\\\u(0000|d[89a-f]..)', '\\1\\\\\\\\u\\2', 'gi')
      else b.meta end)::json) as r (m)
    where b.tags && array[${subjectTag(subject)}::text] and b.tags is not null order by 1, 2, 3`
  )
/** A stream with events about a subject, and a tenant that they have there. */
export type Place = Effect.Success<ReturnType<typeof placesOf>>[number]
/** The tenants of places, no tenant first. */
export const tenantsOf = (places: ReadonlyArray<Place>) =>
  [...new Set(places.map(({ tenant }) => tenant))].toSorted(byName)
/** No tenant comes first. */
const byName = (a: string | null, b: string | null) => ((a ?? "") < (b ?? "") ? -1 : 1)
/** The names of tenants for people. */
export const tenantsText = (tenants: ReadonlyArray<string | null>) =>
  tenants.map((tenant) => (tenant === null ? "no tenant" : shown(tenant))).join(", ")
/** How subjects of several tenants are kept apart. */
export const apart = "`subject` can put the tenant into the name, which keeps tenants apart"
