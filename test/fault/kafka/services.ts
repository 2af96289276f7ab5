// Kafka and PostgreSQL of one run, its own to kill, with the application's database and topics. It runs none of the application.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import postgres from "postgres"
import { launch } from "../../../stack/pick.ts"
import { padding, socketFor } from "../../../src/postgres/client/socket.ts"
import type { Local } from "../../../stack/service.ts"

/** A run's services. */
export interface Services {
  readonly kafka: Local
  readonly postgres: Local
  readonly brokers: string
  /** Of the application's database. */
  readonly url: string
  /** Connections of the harness to it, opened anew when they are lost. */
  readonly sql: postgres.Sql
  /** One connection more, to be ended by who asks for it. */
  readonly connect: () => postgres.Sql
  /** Runs one statement beside the application's database, as `drop database`. */
  readonly beside: (statement: string) => Promise<ReadonlyArray<unknown>>
  readonly close: () => Promise<void>
}

const database = "signals"
/** Members of a group that are gone are missed after a second and a half. */
export const sessionMs = 1_500

const types = {
  bigint: { to: 20, from: [20], serialize: (value: number) => String(value), parse: (text: string) => Number(text) }
}
/** Connections to a database, opened anew when they are lost. */
export const connect = (url: string, max: number): postgres.Sql => {
  // the driver's own socket takes the process with it, or hangs, when a server dies under load
  const bearing = { socket: socketFor(undefined), connection: { options: padding } }
  const usual = { max, fetch_types: false, connect_timeout: 5, backoff: () => 0.05, onnotice: () => undefined, types }
  return postgres(url, { ...usual, ...bearing } as postgres.Options<{}>) as unknown as postgres.Sql
}

/** Starts both, with an empty database. */
export const services = async (): Promise<Services> => {
  const directory = mkdtempSync(join(tmpdir(), "millrace-fault-"))
  const opened: Array<Local> = []
  const remove = async () => {
    await Promise.all(opened.map((one) => one.close()))
    rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
  }
  try {
    const started = await Promise.allSettled(
      (["kafka", "postgres"] as const).map(async (name) => {
        const service = await launch(name, join(directory, name), {
          postgres: { settings: { deadlock_timeout: "200ms" } }
        })
        opened.push(service)
        return service
      })
    )
    for (const one of started) if (one.status === "rejected") throw one.reason
    const [kafka, server] = (["kafka", "postgres"] as const).map((name) => opened.find((one) => one.name === name)!)
    const admin = onServer(server!)
    await admin(`create database ${database}`)
    const url = new URL(server!.endpoints.MILLRACE_DATABASE_URL!)
    url.pathname = `/${database}`
    const sql = connect(url.href, 4)
    return {
      kafka: kafka!,
      postgres: server!,
      brokers: kafka!.endpoints.MILLRACE_KAFKA_BROKERS!,
      url: url.href,
      sql,
      connect: () => connect(url.href, 1),
      beside: admin,
      close: async () => {
        await sql.end({ timeout: 1 })
        await remove()
      }
    }
  } catch (error) {
    await remove()
    throw error
  }
}
/** Runs a statement beside the databases of a run. */
export const onServer = (server: Local) => async (statement: string) => {
  const sql = connect(server.endpoints.MILLRACE_DATABASE_URL!, 1)
  try {
    return await sql.unsafe(statement)
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** Ends PostgreSQL at once, as a crash does, and starts it again; `immediate` lets it tell its sessions. */
export const crashPostgres = async (
  { postgres: server }: Pick<Services, "postgres">,
  immediate: boolean
): Promise<void> => {
  const pid = server.pid()
  if (immediate && pid !== undefined) {
    process.kill(pid, "SIGQUIT")
    while (server.pid() !== undefined) await sleep(10)
  } else await server.kill()
  await server.start()
}
/** Ends the broker at once and starts it again. */
export const crashKafka = async ({ kafka }: Services): Promise<void> => {
  await kafka.kill()
  // a machine that is overloaded may need more patience than one start has
  await kafka.start().catch(() => kafka.start())
}
