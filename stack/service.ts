// What every service of the stack is: endpoints, and a life that tests can interfere with. It knows no particular service.

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

/** Which endpoints a service has. */
export const variables = {
  kafka: ["MILLRACE_KAFKA_BROKERS"],
  postgres: ["MILLRACE_DATABASE_URL"],
  pulsar: ["MILLRACE_PULSAR_URL", "MILLRACE_PULSAR_ADMIN_URL"]
} as const satisfies Record<Name, ReadonlyArray<keyof Endpoints>>

/**
 * A running service. Endpoints stay the same, and what was stored stays stored, whatever is done to it until `close`. What its
 * methods reject with is a `StackError`, or a driver's error.
 */
export interface Local {
  readonly name: Name
  /** Where it comes from. */
  readonly from: "environment" | "docker" | "local"
  readonly endpoints: Endpoints
  /** The main process's id; undefined: it does not run, or is not a process of this machine. */
  readonly pid: () => number | undefined
  /** kill -9. It stays down until `start`. */
  readonly kill: () => Promise<void>
  /** An orderly end. It stays down until `start`. */
  readonly stop: () => Promise<void>
  /** Starts it again and waits until it answers; nothing when it runs. */
  readonly start: () => Promise<void>
  /** Ends it for good. */
  readonly close: () => Promise<void>
}
