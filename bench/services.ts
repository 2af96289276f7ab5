// The services of a benchmark.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { given } from "../stack/pick.ts"
import type { Endpoints } from "../stack/service.ts"
import { kafka, pulsar, type StackError } from "../stack/testing.ts"

const start = { kafka, pulsar }

/**
 * The endpoints of services, until the scope closes: those of the environment, else of new ones. Those are children of this process, so that what they use of
 * the processor does not count as other programs'.
 */
export const services = (
  ...names: ReadonlyArray<keyof typeof start>
): Effect.Effect<Endpoints, StackError, Scope.Scope> =>
  Effect.forEach(names, (name) => {
    const endpoints = given(name)
    return endpoints === undefined
      ? Effect.map(start[name](), (service) => service.endpoints)
      : Effect.succeed(endpoints)
  }).pipe(Effect.map((all) => Object.assign({}, ...all) as Endpoints))
