// One PostgreSQL server process: started, awaited, stopped. It knows nothing of ownership, nor when to start again.
import { execFileSync } from "node:child_process"
import { closeSync, copyFileSync, mkdirSync, openSync, readFileSync, rmSync, statfsSync, truncateSync } from "node:fs"
import { createServer } from "node:net"
import { basename, dirname, join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { Account, Binaries } from "./binaries.ts"
import { configure, environment, own, pathsOf } from "./cluster.ts"
import { diskFull, failed, fromOutput, inUse } from "./errors.ts"
import { lifeOf } from "./lock.ts"
import { logEnd, sizeOf, startChild } from "./process.ts"

/** A running server. */
export interface Postmaster {
  readonly pid: number
  readonly port: number
  /** Settles when the process has ended, however that came. */
  readonly exited: Promise<void>
  /** Fast shutdown: sessions are ended, a checkpoint is written. */
  readonly stop: () => Promise<void>
}
/** What a server is started with. */
export interface Launch {
  readonly state: string
  readonly binaries: Binaries
  readonly account: Account
  readonly port: number
}

const recoveryMs = 300_000
const busyMs = 10_000
const logBytes = 8_000_000
// Less than a segment of the write-ahead log.
const fullBytes = 16_000_000

/** Starts the server and waits until it takes connections, after a crash for as long as recovery takes. */
export const launch = async (options: Launch, signal: AbortSignal): Promise<Postmaster> => {
  const deadline = Date.now() + busyMs
  for (;;) {
    const from = trimLog(options.state)
    try {
      return await launchOnce(options, signal)
    } catch (error) {
      const output = logEnd(pathsOf(options.state).log, from)
      // Sessions of a server that was killed may outlive it for a moment.
      const busy = /lock file "postmaster.pid" already exists|shared memory block .* is still in use/.test(output)
      if (signal.aborted || error !== ended) throw error
      if (!busy || Date.now() > deadline) {
        // On a full disk the log is empty too.
        const { bavail, bsize } = statfsSync(options.state)
        if (bavail * bsize < fullBytes) throw diskFull(options.state, output)
        throw fromOutput(options.state, "PostgreSQL did not start", output, options.port)
      }
      await sleep(50)
    }
  }
}
const ended = Symbol("ended")

const launchOnce = async ({ account, binaries, port, state }: Launch, signal: AbortSignal): Promise<Postmaster> => {
  const { cluster, log } = pathsOf(state)
  configure(state, account)
  const server = [binaries.postgres, "-D", cluster, "-p", String(port)]
  closeSync(openSync(log, "a", 0o600))
  own(log, account)
  // a server whose owner was killed shuts down by itself; Ctrl-C reaches the owner only, which stops the server when nothing uses it
  const child = await startChild({
    command: server,
    prefix: account.prefix,
    log,
    spawn: { ...account.spawn, cwd: state, env: environment() },
    signal: "INT"
  })
  const { exited, isRunning, pid } = child
  const stop = async () => {
    if (!isRunning()) return
    child.unwatch()
    await stopProcess(pid, isRunning)
    await exited
  }
  const deadline = Date.now() + recoveryMs
  while (!isReady(cluster, pid)) {
    if (signal.aborted || Date.now() > deadline) await stop()
    if (!isRunning()) {
      if (Date.now() > deadline) throw failed(state, `PostgreSQL was not ready in five minutes. try: look at ${log}`)
      throw ended
    }
    await sleep(5)
  }
  return { pid, port, exited, stop }
}

const pidFile = (cluster: string): ReadonlyArray<string> => {
  try {
    return readFileSync(join(cluster, "postmaster.pid"), "utf8").split("\n")
  } catch {
    return []
  }
}
const isReady = (cluster: string, pid: number): boolean => {
  const lines = pidFile(cluster)
  return Number(lines[0]) === pid && lines[7]?.trim() === "ready"
}

/** Asks a server to stop, ever less politely, until it is gone. */
const stopProcess = async (pid: number, running: () => boolean): Promise<void> => {
  for (const [signal, waitMs] of [
    ["SIGINT", 20_000],
    ["SIGQUIT", 5_000],
    ["SIGKILL", 5_000]
  ] as const) {
    try {
      process.kill(pid, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ESRCH") return
      throw error
    }
    const deadline = Date.now() + waitMs
    while (Date.now() < deadline) {
      if (!running()) return
      await sleep(5)
    }
  }
}

/**
 * Stops a server that a dead owner left behind; the owner's lock must be held. Its sessions belong to dead processes, so it is
 * not taken over: the new one has our settings and dies with us. Does nothing where none runs.
 */
export const stopOrphan = async (state: string): Promise<void> => {
  const { cluster } = pathsOf(state)
  const pid = Number(pidFile(cluster)[0] ?? 0)
  if (!(pid > 0)) return
  if (isServer(pid, cluster)) {
    await stopProcess(pid, () => isServer(pid, cluster))
    if (isServer(pid, cluster)) throw inUse(state, pid, "a PostgreSQL server that does not stop, process")
  }
  // PostgreSQL would take an unrelated process that has the old id by now for a running server.
  rmSync(join(cluster, "postmaster.pid"), { force: true })
}

const isServer = (pid: number, cluster: string): boolean => {
  if (lifeOf(pid) === undefined) return false
  try {
    const args =
      process.platform === "linux"
        ? readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")
        : execFileSync("ps", ["-o", "command=", "-p", String(pid)], { encoding: "utf8" })
            .trim()
            .split(" ")
    return basename(args[0] ?? "").startsWith("postgres") && args.join(" ").includes(cluster)
  } catch {
    return false
  }
}

/** Keeps the log below some megabytes: the older part moves to `postgres.log.1`. Answers the log's size. */
export const trimLog = (state: string): number => {
  const { log } = pathsOf(state)
  mkdirSync(dirname(log), { recursive: true })
  const size = sizeOf(log)
  if (size < logBytes) return size
  // The server appends, so it goes on at the new end.
  copyFileSync(log, `${log}.1`)
  truncateSync(log)
  return 0
}

/** The port if it is free, or, for 0, one that is; undefined where the port is taken. */
export const freePort = (port: number): Promise<number | undefined> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once("error", () => resolve(undefined))
    server.listen(port, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" ? address?.port : undefined))
    })
  })
