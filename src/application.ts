// An application is what `millrace.config.ts` exports: its projections and aggregates, and the services that their handlers need.
import type * as Layer from "effect/Layer"
import type { Aggregate } from "./aggregate.ts"
import type { Run } from "./projection.ts"

/** What `millrace.config.ts` exports; the CLI, the server and the tests read it. */
export interface Application<out E, in out R> {
  readonly name: string
  readonly aggregates: ReadonlyArray<Aggregate.Any>
  readonly projections: ReadonlyArray<Run<E, R>>
  readonly services: Layer.Layer<R> | undefined
}
type RunError<P> = P extends ReadonlyArray<Run<infer E, any>> ? E : never
type RunServices<P> = P extends ReadonlyArray<Run<any, infer R>> ? R : never
type Provided<R> = [R] extends [never] ? { readonly services?: undefined } : { readonly services: Layer.Layer<R> }
export const Application = {
  /** `services` is asked for if, and only if, a handler needs some. */
  make: <const P extends ReadonlyArray<Run<any, any>>>(options: {
    readonly name: string
    readonly aggregates?: ReadonlyArray<Aggregate.Any>
    readonly projections: P
  } & Provided<RunServices<P>>): Application<RunError<P>, RunServices<P>> => ({ aggregates: [], ...options }) as never
}
