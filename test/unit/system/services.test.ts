// The services of an application: provided, or named where they cannot be built.
import { assert, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Layer } from "effect"
import { withServices } from "../../../src/system/services.ts"

class Prices extends Context.Service<Prices, number>()("Prices") {}
const run = (services: Layer.Layer<Prices, unknown> | undefined) =>
  Effect.exit(
    withServices(
      { name: "shop", services: services as never },
      Effect.gen(function* () {
        return services === undefined ? 0 : yield* Prices
      })
    )
  )

it.effect("handlers get the services; an application without any needs none", () =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* run(Layer.succeed(Prices, 7)), Exit.succeed(7))
    assert.deepStrictEqual(yield* run(undefined), Exit.succeed(0))
  })
)
it.effect("a layer that fails or dies ends with an error that names the application and the cause", () =>
  Effect.gen(function* () {
    const failing = Layer.effect(Prices, Effect.fail(new Error("no PRICES_URL")))
    for (const services of [failing, Layer.orDie(failing)]) {
      const exit = yield* run(services)
      const error = Exit.isFailure(exit) ? (Cause.squash(exit.cause) as Error) : undefined
      assert.strictEqual(error?.message, "the services of the application shop could not be built: no PRICES_URL")
    }
  })
)
