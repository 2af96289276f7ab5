// The handler with a service of the test: no server, and errors whenever the test wants them.
import { test } from "node:test"
import { Effect, Layer } from "effect"
import { ProjectionTest } from "millrace/testing"
import { accounting, InvoiceReceived } from "./millrace.config.ts"
import { Rates, RatesUnavailable, UnknownCurrency } from "./rates.ts"

/** Knows pounds, after it has been unavailable so often. */
const ratesAfter = (failures: number) =>
  Layer.sync(Rates, () => {
    let left = failures
    return Rates.of({
      rateOf: Effect.fnUntraced(function* (currency) {
        if (left-- > 0) return yield* new RatesUnavailable({ reason: "busy" })
        return currency === "GBP" ? 1.16 : yield* new UnknownCurrency({ currency })
      })
    })
  })
const invoice = (currency: string) =>
  InvoiceReceived.make({ invoice_id: "i-1", supplier: "Sheffield Steel", currency, amount: 250, at: "2026-04-07" })

test("an amount is converted to euros", () => {
  ProjectionTest.make(accounting, ratesAfter(0))
    .when([invoice("GBP")])
    .then({ payables: [{ invoice_id: "i-1", euro: 290 }] })
})
test("a server that is busy is asked again, up to five times", () => {
  ProjectionTest.make(accounting, ratesAfter(5))
    .when([invoice("GBP")])
    .then({ payables: [{ euro: 290 }], deadLetters: [] })
  ProjectionTest.make(accounting, ratesAfter(6))
    .when([invoice("GBP")])
    .then({ payables: [], deadLetters: [{ error: "RatesUnavailable" }] })
})
test("an invoice in a currency without a rate is a dead letter, with the error's tag", () => {
  ProjectionTest.make(accounting, ratesAfter(0))
    .when([invoice("CHF")])
    .then({ payables: [], deadLetters: [{ error: "UnknownCurrency", message: "there is no exchange rate of CHF" }] })
})
