// A service of the handler: exchange rates, with errors that the types know, and a layer that asks a server over HTTP.
import { Context, Effect, Layer, Schema } from "effect"

/** The server does not answer, or not now: it may the next time. */
export class RatesUnavailable extends Schema.TaggedError<RatesUnavailable>()("RatesUnavailable", {
  reason: Schema.String
}) {
  override get message() {
    return `the exchange rates are not available: ${this.reason}`
  }
}
/** The server has no such currency: it does not help to ask again. */
export class UnknownCurrency extends Schema.TaggedError<UnknownCurrency>()("UnknownCurrency", {
  currency: Schema.String
}) {
  override get message() {
    return `there is no exchange rate of ${this.currency}`
  }
}

export class Rates extends Context.Service<
  Rates,
  {
    /** How many euros one unit of a currency is worth. */
    readonly rateOf: (currency: string) => Effect.Effect<number, RatesUnavailable | UnknownCurrency>
  }
>()("example/Rates") {
  static readonly layer = Layer.sync(Rates, () => {
    const server = process.env["RATES_URL"] ?? "http://127.0.0.1:7071"
    const rateOf = Effect.fn("Rates.rateOf")(function* (currency: string) {
      const answer = yield* Effect.tryPromise({
        try: (signal) => fetch(`${server}/${currency}`, { signal }),
        catch: (cause) => new RatesUnavailable({ reason: String(cause) })
      }).pipe(
        // a partition waits for its handler, so nothing may take forever
        Effect.timeoutOrElse({
          duration: "2 seconds",
          orElse: () => Effect.fail(new RatesUnavailable({ reason: "no answer within 2 seconds" }))
        })
      )
      if (answer.status === 404) return yield* new UnknownCurrency({ currency })
      if (!answer.ok) return yield* new RatesUnavailable({ reason: `the server answers ${answer.status}` })
      return Number(yield* Effect.promise(() => answer.text()))
    })
    return Rates.of({ rateOf })
  })
}
