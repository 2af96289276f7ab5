// What the services have in common: names, endpoints, and how to stop, kill and start one.

/** The names of the services. */
export const names = ["kafka", "postgres", "pulsar"] as const
export type Name = (typeof names)[number]

/** The addresses of services, under the names of the environment variables that Millrace reads. */
export interface Endpoints {
  readonly MILLRACE_KAFKA_BROKERS?: string
  readonly MILLRACE_DATABASE_URL?: string
  readonly MILLRACE_PULSAR_URL?: string
  readonly MILLRACE_PULSAR_ADMIN_URL?: string
}

/** The environment variables of each service's endpoints. */
export const variables = {
  kafka: ["MILLRACE_KAFKA_BROKERS"],
  postgres: ["MILLRACE_DATABASE_URL"],
  pulsar: ["MILLRACE_PULSAR_URL", "MILLRACE_PULSAR_ADMIN_URL"]
} as const satisfies Record<Name, ReadonlyArray<keyof Endpoints>>

/**
 * A running service. Its endpoints and its stored data stay the same, whatever is done to it until `close`. Methods reject with a
 * `StackError`, or with a driver's error.
 */
export interface Local {
  readonly name: Name
  /** Where it comes from. */
  readonly from: "environment" | "docker" | "local"
  readonly endpoints: Endpoints
  /** The id of the main process; undefined if it does not run, or is not a process of this machine. */
  readonly pid: () => number | undefined
  /** kill -9. It stays down until `start`. */
  readonly kill: () => Promise<void>
  /** An orderly stop. It stays down until `start`. */
  readonly stop: () => Promise<void>
  /** Starts it again and waits until it answers; does nothing if it runs. */
  readonly start: () => Promise<void>
  /** Stops it for good. */
  readonly close: () => Promise<void>
}
