// Which event's code runs at present. It names the event of errors that reach only the process: a rejected promise that nothing awaits, or a
// timer that throws.
import { AsyncLocalStorage } from "node:async_hooks"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

/** What runs, as text. */
type Describe = () => string
/** An event whose code runs, as text: `projection departures_v1, event flights.v1/0 position 5`. */
export const eventText = (
  projection: { readonly name: string; readonly version: number },
  event: { readonly topic: string; readonly partition: number; readonly position: number }
): string =>
  `projection ${projection.name}_v${projection.version}, event ${event.topic}/${event.partition} position ${event.position}`
const running = new AsyncLocalStorage<Describe>()

/** Calls a function. All that it leaves behind (promises, timers) is attributed to what `describe` returns. */
export const runAs = <A>(describe: Describe, run: () => A): A => running.run(describe, run)
/** What left behind the promise or timer whose error is handled at present; undefined if no user code is known to have. */
export const runningCode = (): string | undefined => running.getStore()?.()

/** Attributes all that an Effect leaves behind, as `runAs` does. An Effect's fiber evaluates each step through its tracer. */
export const attributed = <A, E, R>(describe: Describe, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Tracer.Tracer, (tracer) =>
    Effect.provideService(effect, Tracer.Tracer, {
      span: (options) => tracer.span(options),
      context: (primitive, fiber) =>
        running.run(describe, () =>
          tracer.context === undefined ? primitive["~effect/Effect/evaluate"](fiber) : tracer.context(primitive, fiber)
        )
    })
  )
