// The example of services: a handler asks a server over HTTP, which is busy at first and has no rate of one currency.
import * as Effect from "effect/Effect"
import { startInCopy, testExample } from "../../support/example.ts"

testExample("services", {
  beside: Effect.fnUntraced(function* (copy) {
    const rates = yield* startInCopy(copy, { RATES_PORT: "0" }, "npm run rates")
    const [url = ""] = /http:\S+/.exec(yield* rates.said(/exchange rates at http:\S+:\d+/)) ?? []
    return { environment: { RATES_URL: url }, addresses: { "http://127.0.0.1:7071": url } }
  })
})
