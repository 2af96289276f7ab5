// A projection whose handler asks a service. The compiler knows which services and errors it has.
import { Effect, Schedule, Schema } from "effect"
import { Application, Event, Projection, ReadModel, Topic } from "millrace"
import { Rates } from "./rates.ts"

export const InvoiceReceived = Event.make("invoice.received", {
  invoice_id: Schema.String,
  supplier: Schema.String,
  currency: Schema.String,
  amount: Schema.Finite,
  at: Schema.String
})
export const invoices = Topic.events("invoices.v1", {
  events: [InvoiceReceived],
  id: "invoice_id",
  key: "supplier",
  eventTime: ({ at }) => Date.parse(at)
})
export const payables = ReadModel.table("payables", {
  columns: {
    invoice_id: Schema.String,
    supplier: Schema.String,
    currency: Schema.String,
    amount: Schema.Finite,
    euro: Schema.Finite
  },
  primaryKey: ["invoice_id"]
})

/** Up to five retries, 100 ms to 1.6 s apart, of errors that may be gone the next time. Other errors are not retried. */
const retry = Schedule.exponential("100 millis").pipe(
  Schedule.upTo({ times: 5 }),
  Schedule.while(({ input }) => (input as { readonly _tag?: string })._tag === "RatesUnavailable")
)
export const accounting = Projection.make({
  name: "accounting",
  version: 1,
  source: invoices,
  writes: [payables],
  failure: { retry },
  handle: Effect.fnUntraced(function* ({ amount, currency, invoice_id, supplier }, out) {
    const rates = yield* Rates
    const rate = yield* rates.rateOf(currency)
    const euro = Math.round(amount * rate * 100) / 100
    out.upsert(payables, { invoice_id, supplier, currency, amount, euro })
  })
})

// without `services`, or with a layer that has no `Rates`, this does not compile
export default Application.make({
  name: "accounting",
  projections: [Projection.async(accounting)],
  services: Rates.layer
})
