// Pulsar and PostgreSQL of one run, its own to kill, with a database and tenants; clients reach the brokers through proxies. It runs no relay.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type postgres from "postgres"
import { launch } from "../../../stack/pick.ts"
import { freePorts } from "../../../stack/ports.ts"
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
import { TcpProxy } from "../../support/tcp-proxy.ts"

/** The tenants, and the partitions of their topics; 1: it is not partitioned. */
export const tenants = ["north", "south"] as const
export const topics = { alerts: 1, scores: 2 } as const
export type Tenant = (typeof tenants)[number]
export type TopicName = keyof typeof topics
/** What a broker takes, in bytes. */
export const maxMessageBytes = 128 * 1024

/** A run's services. */
export interface Services {
  readonly pulsar: Local
  readonly postgres: Local
  /** Of the database. */
  readonly url: string
  /** Connections of the harness to it, opened anew when they are lost. */
  readonly sql: postgres.Sql
  /** Brokers as the processes under test reach them. */
  readonly through: (transport: TransportName) => PulsarOptions
  /** Past the proxies. */
  readonly direct: PulsarOptions
  readonly admin: Admin
  /** Cuts every connection to a broker, and tells how many there were. */
  readonly cut: () => number
  readonly close: () => Promise<void>
}

const database = "fanned"
const namespace = "alerts"

/** Made as `millrace pulsar apply` does it: deduplication is on. */
const makeTenants = async (admin: Admin) => {
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
const makeTables = (url: string) =>
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

/** A broker that is reached by proxies only, whatever it tells of itself. */
const startPulsar = async (directory: string, broker: TcpProxy, web: TcpProxy) => {
  const [inner = 0, outer = 0] = await freePorts(2)
  broker.target = outer
  const local = await pulsar(directory, {
    properties: {
      brokerServicePort: String(inner),
      internalListenerName: "internal",
      advertisedListeners: `internal:pulsar://127.0.0.1:${inner},outer:pulsar://127.0.0.1:${broker.port}`,
      bindAddresses: `outer:pulsar://127.0.0.1:${outer}`,
      // longer than clients are silent: a process that stands still loses its socket, and with it its producers' names
      webSocketSessionIdleTimeoutMillis: "15000",
      maxMessageSize: String(maxMessageBytes)
    }
  })
  web.target = Number(new URL(local.endpoints.MILLRACE_PULSAR_ADMIN_URL!).port)
  return { local, inner }
}

/** Starts both, with what a run needs in them. */
export const services = async (): Promise<Services> => {
  const directory = mkdtempSync(join(tmpdir(), "millrace-fault-"))
  const closing: Array<() => Promise<unknown>> = [
    async () => rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
  ]
  const close = async () => {
    for (const one of closing.toReversed()) await one()
  }
  try {
    const [broker, web] = [new TcpProxy(), new TcpProxy()]
    for (const one of [broker, web]) {
      await one.open()
      closing.push(() => one.close())
    }
    // what ends here is processes, and no machine: what was written is there
    const server = await launch("postgres", join(directory, "postgres"), { postgres: { settings: { fsync: "off" } } })
    closing.push(() => server.close())
    await onServer(server)(`create database ${database}`)
    const url = new URL(server.endpoints.MILLRACE_DATABASE_URL!)
    url.pathname = `/${database}`
    await makeTables(url.href)
    const { inner, local } = await startPulsar(join(directory, "pulsar"), broker, web)
    closing.push(() => local.close())
    const at = (port: number, webPort: number) => (transport: TransportName) => ({
      ...optionsOf(transport, {
        MILLRACE_PULSAR_URL: `pulsar://127.0.0.1:${port}`,
        MILLRACE_PULSAR_ADMIN_URL: `http://127.0.0.1:${webPort}`
      }),
      namespace
    })
    const direct = { ...at(inner, web.target)("websocket"), timeoutMs: 60_000 }
    const admin = new Admin(direct)
    await makeTenants(admin)
    const sql = connect(url.href, 4)
    closing.push(() => sql.end({ timeout: 1 }))
    return {
      pulsar: local,
      postgres: server,
      url: url.href,
      sql,
      through: at(broker.port, web.port),
      direct,
      admin,
      cut: () => broker.cut() + web.cut(),
      close
    }
  } catch (error) {
    await close()
    throw error
  }
}
