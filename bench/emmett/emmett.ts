// Emmett's event store on PostgreSQL, which the benchmark of aggregates compares with. It is installed on first use, beside this file.
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

/** An event as Emmett has it. */
export interface EmmettEvent {
  readonly type: string
  readonly data: object
}
/** The part of Emmett's store that is measured. */
export interface EmmettStore {
  readonly appendToStream: (stream: string, events: ReadonlyArray<EmmettEvent>) => Promise<unknown>
  readonly aggregateStream: <State>(
    stream: string,
    options: { readonly evolve: (state: State, event: EmmettEvent) => State; readonly initialState: () => State }
  ) => Promise<{ readonly state: State }>
  readonly close: () => Promise<void>
}
interface Opened extends EmmettStore {
  readonly schema: { readonly migrate: () => Promise<void> }
}

const folder = join(import.meta.dirname, "node_modules", "@event-driven-io", "emmett-postgresql")

/** Opens Emmett's store on a database of its own, and creates its tables. */
export const openEmmett = async (url: string): Promise<EmmettStore> => {
  if (!existsSync(folder)) {
    process.stderr.write("installing Emmett\n")
    const flags = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    const { status } = spawnSync("npm", flags, { cwd: import.meta.dirname, stdio: ["ignore", "inherit", "inherit"] })
    if (status !== 0) throw new Error("Emmett could not be installed; measure without it by --only millrace")
  }
  const { getPostgreSQLEventStore } = (await import(pathToFileURL(join(folder, "dist", "index.js")).href)) as {
    readonly getPostgreSQLEventStore: (url: string) => Opened
  }
  const store = getPostgreSQLEventStore(url)
  await store.schema.migrate()
  return store
}
