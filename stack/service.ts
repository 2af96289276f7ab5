// What every service of the stack is: endpoints, and a life that tests can interfere with. It knows no particular service.
import type * as Effect from "effect/Effect"
import type { StackError } from "./errors.ts"

/** The services there are. */
export const names = ["kafka", "postgres", "pulsar"] as const
export type Name = (typeof names)[number]

/** Where services answer, in the names of the environment that Millrace reads. */
export interface Endpoints {
  readonly MILLRACE_KAFKA_BROKERS?: string
  readonly MILLRACE_DATABASE_URL?: string
  readonly MILLRACE_PULSAR_URL?: string
  readonly MILLRACE_PULSAR_ADMIN_URL?: string
}

/** A running service. Endpoints stay the same, and what was stored stays stored, whatever is done to it. */
export interface Service {
  readonly name: Name
  readonly endpoints: Endpoints
  /** Where it comes from. */
  readonly from: "environment" | "docker" | "local"
  /** The main process's id; undefined: it does not run, or not on this machine. */
  readonly pid: () => number | undefined
  /** kill -9. It stays down until `start`. */
  readonly kill: Effect.Effect<void, StackError>
  /** An orderly end. It stays down until `start`. */
  readonly stop: Effect.Effect<void, StackError>
  /** Starts it again and waits until it answers; nothing when it runs. */
  readonly start: Effect.Effect<void, StackError>
  /** `stop`, then `start`. */
  readonly restart: Effect.Effect<void, StackError>
}
/** What a service of this machine is made of: promises, since its owner may be a program without Effect's runtime. */
export interface Local {
  readonly name: Name
  readonly endpoints: Endpoints
  readonly pid: () => number | undefined
  readonly kill: () => Promise<void>
  readonly stop: () => Promise<void>
  readonly start: () => Promise<void>
}
