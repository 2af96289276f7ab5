// Exports what is stored about a subject: all events about it, and what could not be read.
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { HistoryEvent } from "../aggregate/aggregate.ts"
import type { RecordedEvent } from "../aggregate/event-store.ts"
import { type AggregateFailed, reasonOf, UnreadableEvent } from "../aggregate/failures.ts"
import { loggedReason } from "../aggregate/logged-reason.ts"
import { decodeEvent, subjectsIn } from "../aggregate/state.ts"
import type { Aggregate } from "../model/aggregate.ts"
import { aggregatesOf } from "../model/application.ts"
import { hasPersonalData } from "../model/erasures.ts"
import { shown } from "../text/text.ts"
import type { ErasureContext } from "./erasure.ts"
import { SharedSubject } from "./errors.ts"
import { apart, assertSubject, placesOf, type TenantChoice, tenantsOf, tenantsText } from "./subject-places.ts"

/** An event about a subject. */
export interface SubjectEvent extends HistoryEvent<unknown> {}
/** What an export had to leave out of a stream that has events about the subject: it is not known whether these are. */
export interface LeftOut {
  readonly aggregate: string
  readonly stream: string
  /** How many events; undefined: all of the stream. */
  readonly events: number | undefined
  /** Why the first of them could not be exported. */
  readonly reason: string
}
/** A part of an export. */
export type Exported =
  | { readonly _tag: "Event"; readonly event: SubjectEvent }
  | { readonly _tag: "LeftOut"; readonly leftOut: LeftOut }

const assertExported = (subject: string, found: ReadonlyArray<string | null>, { allTenants, tenant }: TenantChoice) =>
  allTenants === true || tenant !== undefined || found.length < 2
    ? Effect.void
    : Effect.fail(
        new SharedSubject({
          message: `the events about ${shown(subject)} are of several tenants: ${tenantsText(found)}`,
          try: `--tenant TENANT, or --all-tenants; ${apart}`
        })
      )

/** Why an event was left out. What code of an aggregate with personal fields throws may quote those of others. */
const because = (error: unknown, aggregate: Aggregate.Any): string => {
  if (error instanceof UnreadableEvent) return `cannot be read: ${error.reason}`
  const { cause } = error as AggregateFailed
  return `has no subject: \`subject\` threw ${hasPersonalData(aggregate) ? loggedReason(error, aggregate) : reasonOf(cause)}`
}

type Context = Pick<ErasureContext, "application" | "eventStore" | "sql">
/** The events about a subject in a stream, and at its end what had to be left out. */
const ofStream = (
  { eventStore }: Context,
  aggregate: Aggregate.Any,
  stream: string,
  subject: string,
  isMeant: (tenant: string | undefined) => boolean
) =>
  Stream.suspend(() => {
    let events = 0
    let reason = ""
    const take = (given: RecordedEvent): ReadonlyArray<Exported> => {
      if (!isMeant(given.tenant)) return []
      try {
        const event = decodeEvent<never>(aggregate, given)
        if (!subjectsIn(aggregate, given, event).includes(subject)) return []
        const { value: _, ...recorded } = given
        return [{ _tag: "Event", event: { ...recorded, event } }]
      } catch (error) {
        if (events++ === 0) reason = `event ${given.version} of type ${given.type} ${because(error, aggregate)}`
        return []
      }
    }
    const found = eventStore.read(aggregate.name, stream).pipe(Stream.map(take), Stream.flattenIterable)
    const rest = Stream.suspend(() => {
      const leftOut = { aggregate: aggregate.name, stream, events, reason }
      return events === 0 ? Stream.empty : Stream.succeed<Exported>({ _tag: "LeftOut", leftOut })
    })
    return Stream.concat(found, rest)
  })

/**
 * All events about a subject, by aggregate and stream; in each stream in the order of their versions. Erased fields are redacted. An event that the
 * application cannot read, or for which `subject` throws, is left out, and its stream named; so is a stream of an aggregate that is no longer declared. Fails with
 * `SharedSubject` if the events are of several tenants and the choice names none.
 */
export const exportSubject = (context: Context, subject: string, choice: TenantChoice = {}) =>
  Stream.unwrap(
    Effect.gen(function* () {
      yield* assertSubject(subject)
      const aggregates = new Map(aggregatesOf(context.application).map((aggregate) => [aggregate.name, aggregate]))
      const places = yield* placesOf(context.sql, subject)
      yield* assertExported(subject, tenantsOf(places), choice)
      const { tenant } = choice
      const isMeant = (given: string | undefined) => tenant === undefined || given === tenant
      const streams = new Map(
        places
          .filter((place) => isMeant(place.tenant ?? undefined))
          .map(({ aggregate, stream }) => [JSON.stringify([aggregate, stream]), { name: aggregate, stream }])
      )
      return Stream.fromIterable(streams.values()).pipe(
        Stream.flatMap(({ name, stream }) => {
          const aggregate = aggregates.get(name)
          if (aggregate !== undefined) return ofStream(context, aggregate, stream, subject, isMeant)
          const reason = `the application has no aggregate ${name}, which could read them`
          return Stream.succeed<Exported>({
            _tag: "LeftOut",
            leftOut: { aggregate: name, stream, events: undefined, reason }
          })
        })
      )
    })
  )
