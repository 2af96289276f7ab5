// One PostgreSQL server process: started, awaited until it accepts connections, and stopped.
import { execFileSync } from "node:child_process"
import { closeSync, ftruncateSync, readFileSync, rmSync, statfsSync, statSync } from "node:fs"
import { createServer } from "node:net"
import { basename, join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { Account, Binaries } from "./binaries.ts"
import { configure, environment, pathsOf } from "./cluster.ts"
import { diskFull, failed, fromOutput, inUse } from "./errors.ts"
import { lifeOf } from "./lock.ts"
import {
  inState,
  makeDirectory,
  type OpenDirectory,
  openForAppending,
  openForWriting,
  readEnd,
  readSmall,
  replaceFile,
  sizeIn
} from "./files.ts"
import { startChild } from "./process.ts"

/** A running server. */
export interface Postmaster {
  readonly pid: number
  readonly port: number
  /** Resolves when the process has ended, for whatever reason. */
  readonly exited: Promise<void>
  /** Shuts down fast: ends all sessions and writes a checkpoint. */
  readonly stop: () => Promise<void>
}
/** How a server is started. */
export interface Launch {
  readonly state: string
  readonly binaries: Binaries
  readonly account: Account
  readonly port: number
}

const recoveryMs = 300_000
const busyMs = 10_000
const logBytes = 8_000_000
// The size of a segment of the write-ahead log: with less free space the disk counts as full.
const fullBytes = 16_000_000

/** Starts the server and waits until it accepts connections: after a crash for the recovery, at most five minutes. */
export const launch = async (options: Launch, signal: AbortSignal): Promise<Postmaster> => {
  const deadline = Date.now() + busyMs
  for (;;) {
    const from = trimLog(options.state, options.account)
    try {
      return await launchOnce(options, signal)
    } catch (error) {
      const output = inLogs(options.state, (directory) => readEnd(directory, logName, 20_000, from))?.toString() ?? ""
      // The sessions of a killed server may outlive it for a moment.
      const busy = /lock file "postmaster.pid" already exists|shared memory block .* is still in use/.test(output)
      if (signal.aborted || error !== ended) throw error
      if (!busy || Date.now() > deadline) {
        // On a full disk the log may be empty too.
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
  // a server whose owner was killed shuts down by itself; Ctrl-C reaches the owner only, which stops the server when nothing uses it
  const child = await startChild({
    command: server,
    prefix: account.prefix,
    log: inLogs(state, (directory) => openForAppending(directory, logName, account.owner)),
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
  while (!isReady(state, pid)) {
    if (signal.aborted || Date.now() > deadline) await stop()
    if (!isRunning()) {
      if (Date.now() > deadline)
        throw failed(state, `PostgreSQL was not ready within five minutes. try: look at ${log}`)
      throw ended
    }
    await sleep(5)
  }
  return { pid, port, exited, stop }
}

const pidFile = (state: string): ReadonlyArray<string> => {
  try {
    return inState(state, ["postgres"], (directory) => readSmall(directory, "postmaster.pid") ?? "").split("\n")
  } catch (error) {
    // there is no cluster
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return []
    throw error
  }
}
const isReady = (state: string, pid: number): boolean => {
  const lines = pidFile(state)
  return Number(lines[0]) === pid && lines[7]?.trim() === "ready"
}

/** Stops a server with ever harder signals, until it has ended. */
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
 * Stops the server that a dead owner left running, if there is one; the caller must hold the lock. The server is not taken over,
 * because a new one has the current settings and ends with this process.
 */
export const stopOrphan = async (state: string): Promise<void> => {
  const { cluster } = pathsOf(state)
  // a server in single-user mode writes its process id with a minus sign
  const pid = Math.abs(Number(pidFile(state)[0] ?? 0))
  if (!(pid > 0)) return
  if (isServer(pid, cluster)) {
    await stopProcess(pid, () => isServer(pid, cluster))
    if (isServer(pid, cluster)) throw inUse(state, pid, "a PostgreSQL server that cannot be stopped, process")
  }
  // If another program has the old server's process id by now, PostgreSQL would take it for a running server.
  inState(state, ["postgres"], ({ at }) => rmSync(join(at, "postmaster.pid"), { force: true }))
}

const isServer = (pid: number, cluster: string): boolean => {
  if (lifeOf(pid) === undefined) return false
  try {
    // a file may name any process: only one of the cluster's owner is stopped
    if (process.platform === "linux" && statSync(`/proc/${pid}`).uid !== statSync(cluster).uid) return false
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

const logName = "postgres.log"
const inLogs = <A>(state: string, use: (directory: OpenDirectory) => A): A => inState(state, ["log"], use)

/** Moves the last 8 MB of a log that exceeds them to `postgres.log.1`. Returns the log's size in bytes. */
export const trimLog = (state: string, { owner }: Account): number => {
  inState(state, [], (directory) => makeDirectory(directory, "log", owner))
  return inLogs(state, (directory) => {
    const size = sizeIn(directory, logName)
    if (size < logBytes) return size
    replaceFile(directory, `${logName}.1`, readEnd(directory, logName, logBytes) ?? "", owner)
    // the server appends to the file, so it continues at the new end
    const descriptor = openForWriting(directory, logName)
    if (descriptor === undefined) return 0
    ftruncateSync(descriptor)
    closeSync(descriptor)
    return 0
  })
}

/** The port if it is free, or a free one for 0; undefined if the port is taken. */
export const freePort = (port: number): Promise<number | undefined> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once("error", () => resolve(undefined))
    server.listen(port, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" ? address?.port : undefined))
    })
  })
