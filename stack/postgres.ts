// Starts a PostgreSQL server on 127.0.0.1 from the programs that npm installs.
import { appendFileSync, chmodSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { accountFor, findBinaries } from "../src/postgres/embedded/binaries.ts"
import { initialise, passwordOf, pathsOf } from "../src/postgres/embedded/cluster.ts"
import { launch, type Postmaster, stopOrphan } from "../src/postgres/embedded/postmaster.ts"
import { name } from "../src/postgres/embedded/roles.ts"
import { freePorts } from "./ports.ts"
import type { Local } from "./service.ts"

/** Options of a server. */
export interface PostgresOptions {
  /** Settings of postgresql.conf that replace or add to the embedded server's own. */
  readonly settings?: Readonly<Record<string, string | number>>
}

// enough for several processes with a pool each, and for the connections of the tests
const usual = { max_connections: 300 }

/** Starts a server with its files in `directory`; resolves when it runs. Rejects with an `EmbeddedError`. */
export const postgres = async (directory: string, options: PostgresOptions = {}): Promise<Local> => {
  mkdirSync(directory, { recursive: true })
  // root's server runs under another account, which needs access to the folder
  chmodSync(directory, process.getuid?.() === 0 ? 0o711 : 0o700)
  const signal = new AbortController().signal
  const binaries = findBinaries()
  const { cluster } = pathsOf(directory)
  const account = accountFor(directory, cluster, binaries)
  await stopOrphan(directory)
  if (await initialise(directory, binaries, account, signal)) {
    const lines = Object.entries({ ...usual, ...options.settings }).map(([key, value]) => `${key} = '${value}'\n`)
    appendFileSync(join(cluster, "postgresql.conf"), lines.join(""))
  }
  const [port = 0] = await freePorts(1)
  let server: Postmaster | undefined
  let running = false
  const start = async () => {
    if (running) return
    await stopOrphan(directory)
    const launched = await launch({ state: directory, binaries, account, port }, signal)
    running = true
    server = launched
    const ended = async () => {
      await launched.exited
      if (server === launched) running = false
    }
    void ended()
  }
  await start()
  const url = `postgres://${name}:${passwordOf(directory, account)}@127.0.0.1:${port}/${name}`
  return {
    name: "postgres",
    from: "local",
    endpoints: { MILLRACE_DATABASE_URL: url },
    pid: () => (running ? server?.pid : undefined),
    kill: async () => {
      if (server === undefined || !running) return
      process.kill(server.pid, "SIGKILL")
      await server.exited
    },
    stop: async () => server?.stop(),
    start,
    close: async () => server?.stop()
  }
}
