// Erases the personal data of a subject, and tells projections of it.
import * as Effect from "effect/Effect"
import type { EventStore } from "../aggregate/event-store.ts"
import type { Aggregate } from "../model/aggregate.ts"
import { type ErasedSubject, subjectTag, type SubjectKeys } from "../erasure/subject-keys.ts"
import type { Application } from "../model/application.ts"
import { erasedEvent, Erasures } from "../model/erasures.ts"
import type { EventType } from "../model/event.ts"
import { givenFor } from "../model/fields.ts"
import type { Writable } from "../model/handler.ts"
import { hasPersonalFields } from "../model/personal.ts"
import type { Projection } from "../model/projection.ts"
import type { Sql } from "../postgres/client/client.ts"
import { run } from "../postgres/store/run.ts"
import { shown } from "../text/text.ts"
import { SharedSubject } from "./errors.ts"
import {
  apart,
  assertSubject,
  type Place,
  placesOf,
  type TenantChoice,
  tenantsOf,
  tenantsText
} from "./subject-places.ts"

/** What erasure and export work with. */
export interface ErasureContext {
  readonly application: Application.Any
  readonly sql: Sql
  readonly eventStore: EventStore["Service"]
  readonly subjectKeys: SubjectKeys["Service"]
}
/** Events about a subject in the streams of one aggregate. */
export interface SubjectStreams {
  readonly aggregate: string
  readonly streams: number
}
/** What an erasure did. */
export interface Erasure extends ErasedSubject {
  readonly aggregates: ReadonlyArray<SubjectStreams>
  /** The tenants that have events about the subject; null: events of no tenant. */
  readonly tenants: ReadonlyArray<string | null>
  /**
   * The projections with read models that handle events with personal fields, of aggregates that have events about the subject, and do not handle `subject.erased`: their rows keep what they took over. Rebuild and promote them,
   * or let them handle the event.
   */
  readonly unaware: ReadonlyArray<string>
}

/**
 * Deletes what was derived from the personal data of a subject: snapshots; what commands to the streams about it were answered without events, for
 * a rejection may quote the state; and the digests of commands, by which guesses of erased fields could be verified.
 */
const forgetDerived = Effect.fnUntraced(function* (sql: Sql, subject: string) {
  yield* run(
    "delete snapshots of a subject",
    () => sql`delete from millrace.event_snapshot where subjects && array[${subject}::text]`
  )
  yield* run(
    "forget digests of commands about a subject",
    () => sql`
      update millrace.log_batch set command_digest = null
      where tags && array[${subjectTag(subject)}::text] and tags is not null and command_digest is not null`
  )
  yield* run(
    "forget answers about a subject",
    () => sql`
      delete from millrace.command c using (
        select distinct topic_id, entity from millrace.log_batch where tags && array[${subjectTag(subject)}::text] and tags is not null
      ) b where c.topic_id = b.topic_id and c.stream = b.entity`
  )
})
/** Appends `subject.erased` for erasures that were not announced yet: once for each, also if several processes do it, or one does it again. */
export const announceErasures = Effect.fnUntraced(function* (
  { eventStore, sql }: Pick<ErasureContext, "eventStore" | "sql">,
  reason = "erased"
) {
  const rows = yield* run(
    "read erasures",
    () => sql<Array<{ subject: string; number: number }>>`
    select subject, max(number) as number from millrace.subject_key where destroyed_at is not null and announced_at is null group by subject limit 1000`
  )
  for (const { number, subject } of rows) {
    // the process that destroyed the keys may have died before this
    yield* forgetDerived(sql, subject)
    const event = erasedEvent({ subject, reason })
    const value = JSON.stringify(Erasures.encode(event as never))
    const append = {
      aggregate: Erasures.name,
      stream: subject,
      expected: "any" as const,
      events: [
        {
          type: event.type,
          value,
          eventTime: undefined,
          eventId: undefined,
          tenant: undefined,
          traceparent: undefined,
          schemaVersion: 1,
          headers: {}
        }
      ]
    }
    yield* eventStore.append(append, `erase/${number}`)
    yield* run(
      "note an announced erasure",
      () => sql`
      update millrace.subject_key set announced_at = now() where subject = ${subject} and number <= ${number} and announced_at is null`
    )
  }
})

/** Fails if the events about a subject are of several tenants and not all are meant, or if none is of the tenant that is meant: all share one key. */
const assertErased = (subject: string, found: ReadonlyArray<string | null>, { allTenants, tenant }: TenantChoice) => {
  if (allTenants === true) return Effect.void
  if (tenant !== undefined && !found.includes(tenant))
    return Effect.fail(
      new SharedSubject({
        message: `no event about ${shown(subject)} is of tenant ${shown(tenant)}; ${found.length === 0 ? "there is none" : `they are of ${tenantsText(found)}`}`,
        try: "correct the subject or --tenant"
      })
    )
  if (found.length < 2) return Effect.void
  const asked = tenant === undefined ? "" : `, so that it cannot be erased for ${shown(tenant)} alone`
  return Effect.fail(
    new SharedSubject({
      message: `the events about ${shown(subject)} are of several tenants: ${tenantsText(found)}. Their personal data has one key${asked}; nothing was erased`,
      try: `--all-tenants, which erases it for all of them; ${apart}`
    })
  )
}

/** Whether a projection's handlers react to erasures; one function for all events may do so. */
const handlesErasures = ({ handle, sources }: Projection.Any): boolean => {
  const given = givenFor(handle)
  const isFunction = typeof given === "function"
  return (
    sources.some(({ name }) => name === Erasures.name) &&
    (isFunction || Object.hasOwn(given as object, "subject.erased"))
  )
}
/** Whether a projection handles events of these aggregates with personal fields; one function handles all events. */
const readsPersonalData = ({ handle, sources }: Projection.Any, aggregates: ReadonlySet<string>): boolean => {
  const given = givenFor(handle)
  const isHandled = ({ type }: EventType.Any) => typeof given === "function" || Object.hasOwn(given as object, type)
  return (sources as unknown as ReadonlyArray<Aggregate.Any>).some(
    ({ events, kind, name }) =>
      (kind as string) === "aggregate" &&
      aggregates.has(name) &&
      events.some((event) => isHandled(event) && hasPersonalFields(event))
  )
}
/** The projections with read models that handle events with personal fields of these aggregates and do not handle `subject.erased`. */
const unawareOf = (application: Application.Any, aggregates: ReadonlySet<string>): ReadonlyArray<string> => [
  ...new Set(
    application.projections
      .map(({ projection }) => projection as Projection.Any)
      .filter((projection) => {
        const hasRows = (projection.writes as ReadonlyArray<Writable>).some(({ kind }) => kind !== "topic")
        return hasRows && readsPersonalData(projection, aggregates) && !handlesErasures(projection)
      })
      .map(({ name }) => name)
  )
]

/** The streams with events about a subject, as places have them. */
const streamsOf = (places: ReadonlyArray<Place>): ReadonlyArray<SubjectStreams> =>
  [...Map.groupBy(places, ({ aggregate }) => aggregate)].map(([aggregate, of]) => ({
    aggregate,
    streams: new Set(of.map(({ stream }) => stream)).size
  }))
/** What an erasure says of the events about its subject, from where they are. */
const aboutPlaces = (application: Application.Any, places: ReadonlyArray<Place>) => {
  const aggregates = streamsOf(places)
  const unaware = unawareOf(application, new Set(aggregates.map(({ aggregate }) => aggregate)))
  return { aggregates, tenants: tenantsOf(places), unaware }
}
/** What `eraseSubject` would do, from what is stored now. Changes nothing, and fails as it does. */
export const previewErasure = Effect.fnUntraced(function* (
  { application, sql }: Pick<ErasureContext, "application" | "sql">,
  subject: string,
  choice: TenantChoice = {}
) {
  yield* assertSubject(subject)
  const places = yield* placesOf(sql, subject)
  yield* assertErased(subject, tenantsOf(places), choice)
  const [row] = yield* run(
    "find what an erasure would delete",
    () => sql<Array<Pick<Erasure, "keys" | "snapshots" | "number">>>`
      select (count(*) filter (where key is not null))::int as keys, coalesce(max(number), 0)::int as number,
        (select count(*)::int from millrace.event_snapshot where subjects && array[${subject}::text]) as snapshots
      from millrace.subject_key where subject = ${subject}`
  )
  return { subject, ...row!, ...aboutPlaces(application, places) } satisfies Erasure
})

/**
 * Destroys the keys of a subject, deletes snapshots and remembered rejections with its data, and appends `subject.erased`. Idempotent: after a failure the same call
 * completes what is left. From then on events with the subject's personal data are refused, and its personal fields are read as redacted.
 * Fails with `SharedSubject`, before it changes anything, if that would erase data of tenants that are not meant.
 */
export const eraseSubject = Effect.fnUntraced(function* (
  context: ErasureContext,
  subject: string,
  reason: string,
  choice: TenantChoice = {}
) {
  yield* assertSubject(subject)
  yield* assertErased(subject, tenantsOf(yield* placesOf(context.sql, subject)), choice)
  yield* context.eventStore.declare([{ name: Erasures.name, partitions: Erasures.partitions }])
  const erased = yield* context.subjectKeys.erase(subject)
  yield* forgetDerived(context.sql, subject)
  yield* announceErasures(context, reason)
  const places = yield* placesOf(context.sql, subject)
  return { ...erased, ...aboutPlaces(context.application, places) } satisfies Erasure
})
