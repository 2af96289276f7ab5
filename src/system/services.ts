// The services of an application, which its handlers use.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Application } from "../model/application.ts"

/** What a layer that cannot be built ends a command with. */
const failed = (name: string, cause: Cause.Cause<unknown>): Error => {
  const error = Cause.squash(cause)
  const reason = error instanceof Error ? error.message : String(error)
  return new Error(`the services of the application ${name} could not be built: ${reason}`, { cause: error })
}

/** Provides the services of an application to what runs its handlers. Dies with an error that says so if they cannot be built. */
export const withServices = <A, E, R>(
  { name, services }: Pick<Application.Any, "name" | "services">,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, never> => {
  const layer: Layer.Layer<never, unknown> = services ?? Layer.empty
  const named = Layer.catchCause(layer, (cause) => Layer.effectDiscard(Effect.die(failed(name, cause))))
  return Effect.provide(effect, named as Layer.Layer<unknown>) as Effect.Effect<A, E, never>
}
