// Kills services of a run, and starts them again.
import { setTimeout as sleep } from "node:timers/promises"
import type postgres from "postgres"
import { connect, patiently } from "../harness/postgres.ts"
import type { ServiceDeath } from "./plan.ts"
import type { Services } from "./services.ts"

/** The sessions of the application's processes, those that execute something first. */
const sessionsOf = (sql: postgres.Sql) =>
  patiently(
    async () =>
      await sql<Array<{ pid: number }>>`
      select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and application_name like 'millrace%'
      order by state = 'active' desc`
  )
const answers = async (sql: postgres.Sql) => void (await patiently(async () => await sql`select`))

const ownOf = ({ own }: Services) => {
  if (own === undefined) throw new Error("the services of this run are shared, so none may be killed")
  return own
}

/** Kills the service. Resolves when it is dead, with what brings it back; that resolves when it answers. */
export const kill = async (services: Services, death: ServiceDeath): Promise<() => Promise<void>> => {
  const own = ownOf(services)
  const { sql } = services
  switch (death) {
    case "sessions ended": {
      for (const { pid } of await sessionsOf(sql)) await sql`select pg_terminate_backend(${pid}::int4)`
      return () => answers(sql)
    }
    case "backend killed": {
      const [first] = await sessionsOf(sql)
      // the server ends all its sessions, and recovers as after a crash
      if (first !== undefined) process.kill(first.pid, "SIGKILL")
      return async () => {
        await sleep(50)
        await answers(sql)
      }
    }
    case "PostgreSQL killed": {
      await own.postgres.kill()
      return async () => {
        await own.postgres.start()
        await answers(sql)
      }
    }
    case "broker killed":
    case "Pulsar killed": {
      const service = death === "broker killed" ? own.kafka : own.pulsar
      await service.kill()
      // on an overloaded machine one start may time out
      return () => service.start().catch(() => service.start())
    }
  }
}

/** Locks a row that the switch needs. Returns what waits until a switch waits for it, and what releases it. */
export const holdSwitch = async (
  { sql, url }: Services,
  build: number
): Promise<{ readonly isWaiting: () => Promise<boolean>; readonly release: () => Promise<void> }> => {
  const held = connect(url, 1)
  await held.unsafe(`begin; select from millrace.progress where version = ${build} and partition = 1 for update`)
  return {
    isWaiting: async () => {
      const rows = await sql`
        select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%promote_flip%'`
      return rows.length > 0
    },
    // ending the session rolls back
    release: () => held.end({ timeout: 1 })
  }
}
