// Starts a Pulsar and a PostgreSQL for one run, which can be killed, with tenants and a database. Clients reach Pulsar through proxies.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type postgres from "postgres"
import { launch } from "../../../stack/pick.ts"
import { pulsar } from "../../../stack/pulsar.ts"
import type { Local } from "../../../stack/service.ts"
import { connect as connectAs } from "../../../src/postgres/client/client.ts"
import { migrate } from "../../../src/postgres/client/migrate.ts"
import { Admin } from "../../../src/pulsar/client/admin.ts"
import type { PulsarOptions } from "../../../src/pulsar/client/options.ts"
import { apply } from "../../../src/pulsar/tenants.ts"
import { Tenancy } from "../../../src/model/tenancy.ts"
import { optionsOf, type TransportName } from "../../support/pulsar.ts"
import { connect, onServer } from "../harness/postgres.ts"
import { PulsarProxies } from "../harness/proxied-pulsar.ts"

/** The tenants, and the numbers of partitions of their topics; 1 means not partitioned. */
export const tenants = ["north", "south"] as const
export const topics = { alerts: 1, scores: 2 } as const
export type Tenant = (typeof tenants)[number]
export type TopicName = keyof typeof topics
/** The largest message that the broker accepts, in bytes. */
export const maxMessageBytes = 128 * 1024

/** A run's services. */
export interface Services {
  readonly pulsar: Local
  readonly postgres: Local
  /** The URL of the database. */
  readonly url: string
  /** The harness's connections to it, which reconnect when they are lost. */
  readonly sql: postgres.Sql
  /** How the processes under test reach Pulsar. */
  readonly through: (transport: TransportName) => PulsarOptions
  /** How Pulsar is reached past the proxies. */
  readonly direct: PulsarOptions
  readonly admin: Admin
  /** Cuts every connection to Pulsar, and returns how many there were. */
  readonly cut: () => number
  readonly close: () => Promise<void>
}

const database = "fanned"
const namespace = "alerts"

/** Creates them as `millrace pulsar apply` does: with deduplication. */
const createTenants = async (admin: Admin) => {
  const tenancy = Tenancy.make({
    tenants,
    namespace,
    topics: Object.entries(topics).map(([name, partitions]) => ({
      name,
      partitions,
      tier: undefined,
      batching: false
    })),
    retention: { time: "1 day" }
  })
  await Effect.runPromise(apply(admin, tenancy))
}
const createTables = (url: string) =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const sql = yield* connectAs(url, { max: 1 })
        yield* migrate(sql)
        yield* Effect.promise(
          () => sql`create table handled (
            id bigint generated always as identity primary key, subscription text not null, stream text not null, seq bigint not null,
            key text not null, process integer not null)`
        )
      })
    )
  )

/** Starts both, and creates tenants and tables. */
export const services = async (): Promise<Services> => {
  const directory = mkdtempSync(join(tmpdir(), "millrace-fault-"))
  const closing: Array<() => Promise<unknown>> = [
    async () => rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
  ]
  const close = async () => {
    for (const one of closing.toReversed()) await one()
  }
  try {
    const proxies = new PulsarProxies()
    closing.push(() => proxies.close())
    const properties = { ...(await proxies.open()), maxMessageSize: String(maxMessageBytes) }
    // processes are killed here, not the machine, so nothing that was written is lost
    const server = await launch("postgres", join(directory, "postgres"), { postgres: { settings: { fsync: "off" } } })
    closing.push(() => server.close())
    await onServer(server)(`create database ${database}`)
    const url = new URL(server.endpoints.MILLRACE_DATABASE_URL!)
    url.pathname = `/${database}`
    await createTables(url.href)
    const local = await pulsar(join(directory, "pulsar"), { properties })
    closing.push(() => local.close())
    proxies.started(local.endpoints)
    const direct = { ...optionsOf("websocket", proxies.direct), namespace, timeoutMs: 60_000 }
    const admin = new Admin(direct)
    await createTenants(admin)
    const sql = connect(url.href, 4)
    closing.push(() => sql.end({ timeout: 1 }))
    return {
      pulsar: local,
      postgres: server,
      url: url.href,
      sql,
      through: (transport) => ({ ...optionsOf(transport, proxies.through), namespace }),
      direct,
      admin,
      cut: () => proxies.cut(),
      close
    }
  } catch (error) {
    await close()
    throw error
  }
}
