// Services for tests, as resources: given by the environment, else Docker's, else local; otherwise a reason to skip. It holds no test.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { StackError } from "./errors.ts"
import { cached, find } from "./jars.ts"
import { kafka as localKafka, type KafkaOptions } from "./kafka.ts"
import { postgres as localPostgres, type PostgresOptions } from "./postgres.ts"
import type { Endpoints, Local, Name, Service } from "./service.ts"

const attempt = <A>(what: string, run: () => Promise<A>): Effect.Effect<A, StackError> =>
  Effect.tryPromise({
    try: run,
    catch: (cause) =>
      cause instanceof StackError
        ? cause
        : new StackError({ reason: "Start", message: `${what}: ${(cause as Error).message}`, cause })
  })

const serviceOf = (local: Local, from: Service["from"]): Service => {
  const stop = attempt(`${local.name} did not stop`, local.stop)
  const start = attempt(`${local.name} did not start`, local.start)
  return {
    name: local.name,
    endpoints: local.endpoints,
    from,
    pid: local.pid,
    kill: attempt(`${local.name} was not killed`, local.kill),
    stop,
    start,
    restart: Effect.andThen(stop, start)
  }
}

/** A service in a temporary directory: it ends with the scope, and the directory goes. */
const scoped = Effect.fnUntraced(function* (name: Name, make: (directory: string) => Promise<Local>) {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), `millrace-${name}-`))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true, maxRetries: 5 }))
  )
  const local = yield* Effect.acquireRelease(
    attempt(`${name} did not start`, () => make(directory)),
    (service) => Effect.promise(() => service.kill())
  )
  return serviceOf(local, "local")
})

/** A Kafka node of the test's own, local. */
export const kafka = (options?: KafkaOptions): Effect.Effect<Service, StackError, Scope.Scope> =>
  scoped("kafka", (directory) => localKafka(directory, options))

/** A PostgreSQL server of the test's own, local. */
export const postgres = (options?: PostgresOptions): Effect.Effect<Service, StackError, Scope.Scope> =>
  scoped("postgres", (directory) => localPostgres(directory, options))

export { cached, find }
export type { Endpoints }
