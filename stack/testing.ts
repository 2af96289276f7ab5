// The services as resources of a scope, for tests and benchmarks.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { up } from "./client.ts"
import { StackError } from "./errors.ts"
import { kafka as localKafka, kafkaCluster as localCluster, type KafkaOptions } from "./kafka.ts"
import type { Security } from "./kafka-security.ts"
import { cache, cached, type Jars, jars } from "./jars.ts"
import { given, launch, obstacle, useDocker } from "./pick.ts"
import type { PostgresOptions } from "./postgres.ts"
import { pulsar as localPulsar, type PulsarOptions } from "./pulsar.ts"
import type { PulsarSecurity } from "./pulsar-security.ts"
import type { Endpoints, Local, Name } from "./service.ts"
import { lifeOfProcess } from "./state.ts"

export { StackError } from "./errors.ts"

/** A service that runs until its scope closes. Its endpoints and its stored data stay the same through every fault. */
export interface Service {
  readonly name: Name
  readonly endpoints: Endpoints
  /** Where it comes from. */
  readonly from: Local["from"]
  /** The id of the main process; undefined if it does not run, or runs in a container. */
  readonly pid: () => number | undefined
  /** kill -9. It stays down until `start`. */
  readonly kill: Effect.Effect<void, StackError>
  /** An orderly stop. It stays down until `start`. */
  readonly stop: Effect.Effect<void, StackError>
  /** Starts it again and waits until it answers; does nothing if it runs. */
  readonly start: Effect.Effect<void, StackError>
  /** `stop`, then `start`. */
  readonly restart: Effect.Effect<void, StackError>
}

const attempt = <A>(what: string, run: () => Promise<A>): Effect.Effect<A, StackError> =>
  Effect.tryPromise({
    try: run,
    catch: (cause) =>
      cause instanceof StackError
        ? cause
        : new StackError({ reason: "Start", message: `${what}: ${(cause as Error).message}`, cause })
  })

/** A service in a temporary directory. It stops when the scope closes, and the directory is deleted. */
const own = Effect.fnUntraced(function* (
  name: Name,
  make: (directory: string) => Promise<Local>
): Effect.fn.Return<Service, StackError, Scope.Scope> {
  const directory = yield* temporary(name)
  const local = yield* Effect.acquireRelease(
    attempt(`${name} did not start`, () => make(directory)),
    (service) => Effect.promise(() => service.close())
  )
  return serviceOf(name, local)
})
const temporary = (name: string) =>
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), `millrace-${name}-`))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true, maxRetries: 5 }))
  )
const serviceOf = (name: Name, local: Local): Service => {
  const { endpoints, from, pid } = local
  const stop = attempt(`${name} did not stop`, local.stop)
  const start = attempt(`${name} did not start`, local.start)
  const kill = attempt(`${name} was not killed`, local.kill)
  return { name, endpoints, from, pid, kill, stop, start, restart: Effect.andThen(stop, start) }
}

/** A Kafka node for one test, which may stop and configure it; never one of the environment. */
export const kafka = (options: KafkaOptions = {}) =>
  own("kafka", (directory) => launch("kafka", directory, { kafka: options }))

/** A local Kafka node with listeners that require passwords and certificates; `security` has their addresses and the credentials. */
export const secureKafka = (
  options: KafkaOptions = {}
): Effect.Effect<Service & { readonly security: Security }, StackError, Scope.Scope> => {
  const made: { security?: Security } = {}
  const make = async (directory: string) => {
    const node = await localKafka(directory, { ...options, secure: true })
    if (node.security !== undefined) made.security = node.security
    return node
  }
  return Effect.map(own("kafka", make), (service) => ({ ...service, security: made.security as Security }))
}

/** A Kafka cluster of three nodes for one test, which may kill and start each; the endpoints of each name all three. */
export const kafkaCluster = Effect.fnUntraced(function* (
  options: Omit<KafkaOptions, "member" | "secure"> = {}
): Effect.fn.Return<ReadonlyArray<Service>, StackError, Scope.Scope> {
  const directory = yield* temporary("kafka-cluster")
  const nodes = yield* Effect.acquireRelease(
    attempt("the Kafka cluster did not start", () => localCluster(directory, options)),
    (all) => Effect.promise(() => Promise.all(all.map((node) => node.close())))
  )
  const endpoints = { MILLRACE_KAFKA_BROKERS: nodes.map((node) => node.endpoints.MILLRACE_KAFKA_BROKERS).join() }
  return nodes.map((node) => Object.assign(serviceOf("kafka", node), { endpoints }))
})

/** A PostgreSQL server for one test; never one of the environment. */
export const postgres = (options: PostgresOptions = {}) =>
  own("postgres", (directory) => launch("postgres", directory, { postgres: options }))

/** A standalone Pulsar for one test; never one of the environment. */
export const pulsar = (options: PulsarOptions = {}) =>
  own("pulsar", (directory) => launch("pulsar", directory, { pulsar: options }))

/** A local Pulsar that requires authentication; `security` has the credentials and the addresses with TLS. */
export const securePulsar = (
  options: PulsarOptions = {}
): Effect.Effect<Service & { readonly security: PulsarSecurity }, StackError, Scope.Scope> => {
  const made: { security?: PulsarSecurity } = {}
  const make = async (directory: string) => {
    const broker = await localPulsar(directory, { ...options, secure: true })
    if (broker.security !== undefined) made.security = broker.security
    return broker
  }
  return Effect.map(own("pulsar", make), (service) => ({ ...service, security: made.security as PulsarSecurity }))
}

/**
 * The endpoints of services that all test files of a run share: those of the environment, else services that the first caller starts and
 * that stop with the test runner. Tests use names of topics and databases that no other test has, and stop nothing.
 */
export const shared = (...wanted: ReadonlyArray<Name>): Effect.Effect<Endpoints, StackError> =>
  attempt(`${wanted.join(", ")} did not start`, async () => {
    // the runner is the parent of a test worker; any other program owns the services itself
    const owner = lifeOfProcess(process.env["VITEST"] === undefined ? process.pid : process.ppid)
    if (owner === null)
      throw new StackError({ reason: "Start", message: "the test runner is gone. try: run the tests again" })
    return up(join(tmpdir(), `millrace-stack-${owner.pid}-${owner.life}`), wanted, owner)
  })

/**
 * Why a service cannot be started on this machine, in a sentence that ends with what to try; undefined if it can. With `own`, a service of
 * the environment does not count.
 */
export const lacking = async (name: Name, own: boolean): Promise<string | undefined> =>
  !own && given(name) !== undefined ? undefined : obstacle(name)

/** Whether a service would run from jars that are not fetched yet. */
export const isUnfetched = async (name: Name, own: boolean): Promise<boolean> =>
  name !== "postgres" && (own || given(name) === undefined) && cached(name) === undefined && !(await useDocker())

/** Fetches a service's jars, and returns why that failed. The test files of a run try it once. */
export const jarsProblem = async (name: Name): Promise<string | undefined> => {
  if (name === "postgres") return undefined
  const file = join(cache(), `${name}.failed`)
  const runner = `run ${process.ppid} ${lifeOfProcess(process.ppid)?.life}\n`
  const before = readIfThere(file)
  if (before.startsWith(runner)) return before.slice(runner.length)
  try {
    await jars(name satisfies Jars)
    rmSync(file, { force: true })
    return undefined
  } catch (error) {
    const { message } = error as Error
    try {
      writeFileSync(file, runner + message)
    } catch {
      // the next file tries again
    }
    return message
  }
}
const readIfThere = (file: string): string => {
  try {
    return readFileSync(file, "utf8")
  } catch {
    return ""
  }
}
