// The services of a run: shared with other runs, or its own ones, which can be killed.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type postgres from "postgres"
import { launch } from "../../../stack/pick.ts"
import { type Endpoints, type Local, type Name, names } from "../../../stack/service.ts"
import { shared } from "../../../stack/testing.ts"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import type { Log } from "../../../src/log/log.ts"
import { connect as connectPulsar } from "../../../src/pulsar/client/cluster.ts"
import type { PulsarOptions } from "../../../src/pulsar/client/options.ts"
import { server } from "../../support/postgres.ts"
import { optionsOf } from "../../support/pulsar.ts"
import { makeTenant } from "../../support/relay-pulsar.ts"
import { connect } from "../harness/postgres.ts"

/** What a run works on. */
export interface Services {
  /** The name of the run, by which it shares brokers. */
  readonly name: string
  readonly log: Log["Service"]
  readonly brokers: ReadonlyArray<string>
  readonly pulsar: PulsarOptions
  /** The URL of the application's database. */
  readonly url: string
  /** The harness's connections to it, which reconnect when they are lost. */
  readonly sql: postgres.Sql
  /** The services that belong to this run alone; undefined if they are shared, so that none may be killed. */
  readonly own: Readonly<Record<Name, Local>> | undefined
}

/** Starts all services in a temporary directory, until the scope closes. */
const launchAll = Effect.fnUntraced(function* (): Effect.fn.Return<Readonly<Record<Name, Local>>, never, Scope.Scope> {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-fault-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true, maxRetries: 5 }))
  )
  const started = yield* Effect.forEach(
    names,
    (name) =>
      Effect.acquireRelease(
        Effect.promise(() => launch(name, join(directory, name), { pulsar: { heapMb: 1_024 } })),
        (service) => Effect.promise(() => service.close())
      ),
    { concurrency: "unbounded" }
  )
  return Object.fromEntries(started.map((one) => [one.name, one])) as Record<Name, Local>
})

/** Opens the services of a run, its own ones if `isOwn`, with a tenant and a database of its own, until the scope closes. */
export const open = Effect.fnUntraced(function* (
  name: string,
  isOwn: boolean
): Effect.fn.Return<Services, unknown, Scope.Scope> {
  const own = isOwn ? yield* launchAll() : undefined
  const endpoints: Endpoints =
    own === undefined
      ? yield* shared("kafka", "pulsar")
      : Object.assign({}, ...Object.values(own).map((one) => one.endpoints))
  const brokers = endpoints.MILLRACE_KAFKA_BROKERS!.split(",")
  const pulsar = { ...optionsOf("websocket", endpoints), tenant: name, namespace: "alerts" }
  yield* Effect.promise(async () => makeTenant(await Effect.runPromise(Effect.scoped(connectPulsar(pulsar))), name))
  const url = new URL(own === undefined ? yield* server : own.postgres.endpoints.MILLRACE_DATABASE_URL!)
  const admin = connect(url.href, 1)
  // the processes migrate it, with the patches of a mutant
  yield* Effect.promise(() => admin.unsafe(`create database ${name}`).finally(() => admin.end({ timeout: 1 })))
  url.pathname = `/${name}`
  const sql = yield* Effect.acquireRelease(
    Effect.sync(() => connect(url.href, 4)),
    (one) => Effect.promise(() => one.end({ timeout: 1 }))
  )
  return { name, brokers, pulsar, url: url.href, sql, own, log: yield* KafkaLog.make({ brokers }) }
})
