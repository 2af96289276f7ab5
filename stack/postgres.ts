// A PostgreSQL server of its own, from the programs that npm brings, on 127.0.0.1. It makes no tables.
import { appendFileSync, chmodSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { accountFor, findBinaries } from "../src/postgres/embedded/binaries.ts"
import { initialise, name, passwordOf, pathsOf } from "../src/postgres/embedded/cluster.ts"
import { launch, type Postmaster, stopOrphan } from "../src/postgres/embedded/postmaster.ts"
import { freePorts } from "./ports.ts"
import type { Local } from "./service.ts"

/** How the server differs from the usual. */
export interface PostgresOptions {
  /** Lines of postgresql.conf, over the embedded server's own. */
  readonly settings?: Readonly<Record<string, string | number>>
}

// Several processes with a pool each, beside what the tests themselves open.
const usual = { max_connections: 300 }

/** A server whose files lie in `directory`; it runs when this answers. Fails with an `EmbeddedError`. */
export const postgres = async (directory: string, options: PostgresOptions = {}): Promise<Local> => {
  mkdirSync(directory, { recursive: true })
  // The server of root runs as another account, which must get through.
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
