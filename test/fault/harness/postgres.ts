// Connections to a PostgreSQL that the harness itself kills.
import { setTimeout as sleep } from "node:timers/promises"
import postgres from "postgres"
import { padding, socketFor } from "../../../src/postgres/client/socket.ts"
import type { Local } from "../../../stack/service.ts"

const types = {
  bigint: { to: 20, from: [20], serialize: (value: number) => String(value), parse: (text: string) => Number(text) }
}
/** Connects to a database. Lost connections are opened again. */
export const connect = (url: string, max: number): postgres.Sql => {
  // with its own socket the driver crashes this process, or hangs, when a server dies under load
  const tolerant = { socket: socketFor(undefined), connection: { options: padding } }
  const usual = { max, fetch_types: false, connect_timeout: 5, backoff: () => 0.05, onnotice: () => undefined, types }
  return postgres(url, { ...usual, ...tolerant } as postgres.Options<{}>) as unknown as postgres.Sql
}

const maxTries = 20
/** Asks up to 20 times if the server is down or a connection is lost, because the harness kills the server that it asks. */
export const patiently = async <A>(ask: () => Promise<A>): Promise<A> => {
  for (let n = 1; ; n++) {
    try {
      return await ask()
    } catch (error) {
      if (n === maxTries) throw error
      await sleep(Math.min(100 * n, 1_000))
    }
  }
}

/** Returns how to run a statement on the server, outside the databases of a run. */
export const onServer = (server: Local) => async (statement: string) => {
  const sql = connect(server.endpoints.MILLRACE_DATABASE_URL!, 1)
  try {
    return await sql.unsafe(statement)
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** Ends PostgreSQL as a crash does, and starts it again: by SIGQUIT if `immediate`, so that it informs its sessions, otherwise by SIGKILL. */
export const crashPostgres = async (
  { postgres: server }: { readonly postgres: Local },
  immediate: boolean
): Promise<void> => {
  const pid = server.pid()
  if (immediate && pid !== undefined) {
    process.kill(pid, "SIGQUIT")
    while (server.pid() !== undefined) await sleep(10)
  } else await server.kill()
  await server.start()
}
