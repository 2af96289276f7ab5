// Starts a Kafka and a PostgreSQL for one run, which can be killed, with an empty database for the application.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type postgres from "postgres"
import { launch } from "../../../stack/pick.ts"
import type { Local } from "../../../stack/service.ts"
import { connect, onServer } from "../harness/postgres.ts"

/** A run's services. */
export interface Services {
  readonly kafka: Local
  readonly postgres: Local
  readonly brokers: string
  /** The URL of the application's database. */
  readonly url: string
  /** The harness's connections to it, which reconnect when they are lost. */
  readonly sql: postgres.Sql
  /** Opens one more connection, which the caller ends. */
  readonly connect: () => postgres.Sql
  /** Runs a statement on the server outside the application's database, such as `drop database`. */
  readonly beside: (statement: string) => Promise<ReadonlyArray<unknown>>
  readonly close: () => Promise<void>
}

const database = "signals"
/** The session timeout of groups, so that a killed member is removed soon. */
export const sessionMs = 1_500

/** Starts both, and creates an empty database. */
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
/** Kills the broker and starts it again. */
export const crashKafka = async ({ kafka }: Services): Promise<void> => {
  await kafka.kill()
  // on an overloaded machine one start may time out
  await kafka.start().catch(() => kafka.start())
}
