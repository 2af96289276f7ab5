// The aggregate of erased subjects: its events tell projections whose data to delete. Pure.
import * as Schema from "effect/Schema"
import { Aggregate } from "./aggregate.ts"
import { Event, type EventType } from "./event.ts"
import { hasPersonalFields } from "./personal.ts"

const fields = { subject: Schema.String, reason: Schema.String }
/** The personal data of a subject was erased: events are redacted from now on, wherever they are read. */
const Erased = Event.make("subject.erased", fields)

/**
 * A source for projections that keep personal data: it has an event `subject.erased` for each erasure, whose `subject` is whose data has to go.
 * Applications with personal fields have it; it takes no commands but `millrace erase`. Sources are read side by side, so handlers of other events
 * read `meta.erased`, and write for an erased event what `subject.erased` leaves behind.
 *
 * ```ts
 * Projection.make({ name: "customers", version: 1, source: [Customer, Erasures], writes: [customers], handle: {
 *   "customer.registered": ({ customer_id, email }, out, { meta }) => {
 *     if (!meta.erased) out.upsert(customers, { customer_id, email })
 *   },
 *   "subject.erased": ({ subject }, out) => out.delete(customers, { customer_id: subject })
 * } })
 * ```
 */
export const Erasures = Aggregate.make({
  name: "millrace-erasures",
  events: [Erased],
  commands: { erase: fields },
  state: Schema.Struct({ erased: Schema.Int }),
  initial: { erased: 0 },
  evolve: { "subject.erased": ({ erased }) => ({ erased: erased + 1 }) },
  decide: { erase: (_, { reason, subject }) => Erased.make({ subject, reason }) },
  id: "subject",
  partitions: 1
})
/** An event of it. */
export const erasedEvent = Erased.make

/** Whether an aggregate has personal fields. */
export const hasPersonalData = ({ events }: { readonly events: ReadonlyArray<EventType.Any> }): boolean =>
  events.some(hasPersonalFields)
