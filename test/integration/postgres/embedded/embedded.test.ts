// The embedded PostgreSQL: created, restarted, refused, joined, killed in every way, and out of disk space.
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { afterEach, assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import postgres from "postgres"
import * as Embedded from "../../../../src/postgres/embedded/embedded.ts"
import { holderOf, lifeOf, release, tryAcquire } from "../../../../src/postgres/embedded/lock.ts"
import { skipWithout } from "../../../support/stack.ts"

const cleanups: Array<() => unknown> = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup()
})
const removed = (directory: string): boolean => {
  try {
    rmSync(directory, { recursive: true, force: true })
    return true
  } catch {
    return false
  }
}
const temporary = (): string => {
  const directory = mkdtempSync(join(tmpdir(), "millrace-embedded-"))
  // An initdb whose parent was killed may go on writing for a moment.
  cleanups.push(() => eventually(`${directory} is removed`, () => removed(directory)))
  return directory
}

const obtain = (kind: "start" | "use", options: Embedded.EmbeddedOptions) =>
  kind === "start" ? Embedded.start(options) : Embedded.use(options)
/** Starts or joins a server in this process; closed at the end of the test, if not before. */
const open = async (kind: "start" | "use", options: Embedded.EmbeddedOptions) => {
  const scope = Scope.makeUnsafe()
  const close = () => Effect.runPromise(Scope.close(scope, Exit.void))
  const server = await Effect.runPromise(obtain(kind, options).pipe(Scope.provide(scope))).catch(async (error) => {
    await close()
    throw error
  })
  cleanups.push(close)
  return { ...server, close }
}
const refused = async (kind: "start" | "use", options: Embedded.EmbeddedOptions): Promise<Embedded.EmbeddedError> =>
  Effect.runPromise(Effect.scoped(Effect.flip(obtain(kind, options))))

const run = async (url: string, statement: string): Promise<ReadonlyArray<object>> => {
  const sql = postgres(url, { max: 1, fetch_types: false, connect_timeout: 3 })
  return sql.unsafe(statement).then(
    async (rows) => (await sql.end(), [...rows]),
    async (error) => (await sql.end({ timeout: 0 }), Promise.reject(error))
  )
}
const eventually = async (what: string, check: () => unknown, waitMs = 25_000): Promise<void> => {
  const deadline = Date.now() + waitMs
  while (!(await check())) {
    assert.isBelow(Date.now(), deadline, what)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
const answers = (url: string) =>
  run(url, "select 1").then(
    () => true,
    () => false
  )

interface Line {
  readonly started?: string
  readonly url: string
  readonly rows: ReadonlyArray<object>
  readonly failed?: Embedded.EmbeddedError
}
/** Starts or joins a server in a process of its own, and returns the line that it prints. */
const child = async (kind: "start" | "use", dataDir: string, statement = "select 1", waitMs = 0) => {
  const script = fileURLToPath(new URL("../../../support/embedded-child.ts", import.meta.url))
  const flags = "Deno" in globalThis ? ["run", "-A"] : []
  const started: ChildProcess = spawn(process.execPath, [...flags, script, kind, dataDir, statement, String(waitMs)], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  const ended = new Promise((resolve) => started.once("exit", resolve))
  cleanups.push(async () => {
    const server = postmaster(dataDir)
    started.kill("SIGKILL")
    await ended
    await eventually("its server stops", () => server === 0 || lifeOf(server) === undefined)
  })
  const line = await new Promise<string>((resolve, reject) => {
    if (started.stdout !== null) createInterface(started.stdout).once("line", resolve)
    // if it printed a line, it was read by now
    started.once("close", (code) => reject(new Error(`the child ended with ${code}`)))
  })
  return {
    ...(JSON.parse(line) as Line),
    pid: started.pid as number,
    kill: () => (started.kill("SIGKILL"), ended),
    ended
  }
}
/** The server's process id; 0 if there is none. */
const postmaster = (dataDir: string): number => {
  try {
    return Number.parseInt(readFileSync(join(dataDir, "postgres/postmaster.pid"), "utf8"), 10)
  } catch {
    return 0
  }
}
const watchdogs = (dataDir: string): ReadonlyArray<number> =>
  execFileSync("ps", ["-eo", "pid,args"], { encoding: "utf8" })
    .split("\n")
    .filter((line) => line.includes(`${dataDir}/`) && line.includes("/bin/sh -c"))
    .map((line) => Number.parseInt(line, 10))

describe("start", () => {
  it("creates a cluster, keeps its data, port and password over a restart, and stops with its scope", async () => {
    const dataDir = join(temporary(), "state")
    const first = await open("start", { dataDir })
    assert.strictEqual(first.started, "initialised")
    await run(first.url, "create table kept as select 42 as answer")
    await first.close()
    assert.isFalse(await answers(first.url))
    const second = await open("start", { dataDir })
    assert.deepStrictEqual([second.started, second.url], ["restarted", first.url])
    assert.deepStrictEqual(await run(second.url, "select answer from kept"), [{ answer: 42 }])
  })

  it("listens on 127.0.0.1 only, requires its password, and syncs commits", async () => {
    const { dataDir, url } = await open("start", { dataDir: join(temporary(), "state") })
    const settings = "select name, setting from pg_settings where name = any (string_to_array($1, ',')) order by name"
    const names = ["fsync", "listen_addresses", "synchronous_commit"]
    const sql = postgres(url, { max: 1, fetch_types: false })
    const rows = await sql.unsafe(settings, [names.join()]).values()
    await sql.end()
    assert.deepStrictEqual(
      [...rows],
      [
        ["fsync", "on"],
        ["listen_addresses", "127.0.0.1"],
        ["synchronous_commit", "on"]
      ]
    )
    // a setting that only superusers may read
    assert.include(readFileSync(join(dataDir, "postgres/millrace.conf"), "utf8"), "\nunix_socket_directories = ''\n")
    const wrong = new URL(url)
    wrong.password = "wrong"
    assert.isFalse(await answers(wrong.href))
    for (const file of ["millrace.json", "password"]) assert.strictEqual(statSync(join(dataDir, file)).mode & 0o077, 0)
  })

  it("returns a URL that psql accepts", async ({ skip }) => {
    if (spawnSync("psql", ["--version"]).error !== undefined) return skipWithout("psql", "psql is not installed", skip)
    const { url } = await open("start", { dataDir: join(temporary(), "state") })
    assert.strictEqual(
      execFileSync("psql", [url, "-Atc", "select current_database()"], { encoding: "utf8" }),
      "millrace\n"
    )
  })

  it("runs in a state directory that other accounts can read, and in one that they cannot", async () => {
    const directory = temporary()
    chmodSync(directory, 0o755)
    const { url } = await open("start", { dataDir: join(directory, "state") })
    assert.isTrue(await answers(url))
  })

  it("refuses a second owner, in this process and in another, until the first has stopped", async () => {
    const dataDir = join(temporary(), "state")
    const { close } = await open("start", { dataDir })
    const error = await refused("start", { dataDir })
    assert.strictEqual(error.reason, "InUse")
    assert.include(error.message, `${dataDir} is in use by process ${process.pid}`)
    assert.include(error.message, "try:")
    assert.strictEqual((await child("start", dataDir)).failed?.reason, "InUse")
    await close()
    assert.strictEqual((await child("start", dataDir)).started, "restarted")
  })

  it("admits exactly one of several owners that start at once", async () => {
    const dataDir = join(temporary(), "state")
    const all = await Promise.all(Array.from({ length: 4 }, () => child("start", dataDir, "select 1", 60_000)))
    assert.strictEqual(all.filter(({ started }) => started !== undefined).length, 1)
    assert.strictEqual(all.filter(({ failed }) => failed?.reason === "InUse").length, 3)
    await Promise.all(all.map(({ kill }) => kill()))
  })

  it("takes the requested port, refuses one in use, and takes another when only the last used one is in use", async () => {
    const dataDir = join(temporary(), "state")
    const { close, port } = await open("start", { dataDir })
    await close()
    const blocker = createServer()
    await new Promise<void>((resolve) => void blocker.listen(port, "127.0.0.1", resolve))
    cleanups.push(() => blocker.close())
    const error = await refused("start", { dataDir, port })
    assert.strictEqual(error.reason, "PortInUse")
    assert.include(error.message, String(port))
    assert.notStrictEqual((await open("start", { dataDir })).port, port)
  })

  it("refuses a file, a directory with other data, and the data of another version", async () => {
    const directory = temporary()
    writeFileSync(join(directory, "file"), "")
    assert.strictEqual((await refused("start", { dataDir: join(directory, "file") })).reason, "Permission")
    // somebody's directory stays as it is
    const error = await refused("start", { dataDir: directory })
    assert.deepStrictEqual([error.reason, readdirSync(directory)], ["Permission", ["file"]])
    assert.include(error.message, `${directory} is no state directory of Millrace, and it is not empty: it holds file`)
    mkdirSync(join(directory, "other/postgres"), { recursive: true })
    writeFileSync(join(directory, "other/password"), "")
    writeFileSync(join(directory, "other/postgres/mine.txt"), "")
    assert.include(
      (await refused("start", { dataDir: join(directory, "other") })).message,
      "holds no PostgreSQL cluster"
    )
    writeFileSync(join(directory, "other/postgres/PG_VERSION"), "9.6\n")
    assert.strictEqual((await refused("start", { dataDir: join(directory, "other") })).reason, "Unsupported")
  })
})

describe.skipIf(process.platform !== "linux")("a directory that cannot hold files", () => {
  it.for(["/proc", "/proc/self", "/proc/self/no/such", "/sys/kernel"])(
    "%s is refused by its own name",
    async (dataDir) => {
      const { message, reason } = await refused("use", { dataDir })
      assert.strictEqual(reason, "Permission")
      assert.notInclude(message, "/fd/")
      assert.isTrue(/^\/(proc|sys)/.test(message), message)
      assert.include(message, "try: choose another directory with --data DIR")
    }
  )
})

describe("interruption", () => {
  it("leaves nothing running and nothing locked, whenever it happens", async () => {
    const dataDir = join(temporary(), "state")
    for (const waitMs of [1, 30, 120, 300, 450, 550, 650]) {
      const fiber = Effect.runFork(Effect.scoped(Embedded.start({ dataDir })))
      await new Promise((resolve) => setTimeout(resolve, waitMs))
      await Effect.runPromise(Fiber.interrupt(fiber))
      assert.isUndefined(existsSync(join(dataDir, "lock")) ? holderOf(dataDir) : undefined)
      assert.strictEqual(postmaster(dataDir), 0)
    }
    assert.isTrue(await answers((await open("start", { dataDir })).url))
  })
})

describe("use", () => {
  it("joins a running server and leaves it running", async () => {
    const dataDir = join(temporary(), "state")
    const owner = await child("start", dataDir, "create table t as select 1 as x", 60_000)
    const joined = await open("use", { dataDir })
    assert.deepStrictEqual([joined.started, joined.url], ["joined", owner.url])
    assert.deepStrictEqual(await run(joined.url, "select x from t"), [{ x: 1 }])
    await joined.close()
    assert.isTrue(await answers(owner.url))
  })

  it("starts a server if none runs, and stops it after the last process that joined it has left", async () => {
    const dataDir = join(temporary(), "state")
    const all = await Promise.all([1, 2, 3, 4].map((x) => child("use", dataDir, `select ${x} as x, pg_sleep(0.3)`)))
    assert.deepStrictEqual(
      all.map(({ rows }) => (rows[0] as { x: number }).x),
      [1, 2, 3, 4]
    )
    await Promise.all(all.map(({ ended }) => ended))
    assert.isFalse(await answers(all[0]?.url ?? ""))
  })

  it("makes an owner wait until it has ended", async () => {
    const dataDir = join(temporary(), "state")
    const brief = await child("use", dataDir, "select 1", 800)
    assert.strictEqual((await open("start", { dataDir })).started, "restarted")
    assert.strictEqual(await brief.ended, 0)
  })
})

describe("kill -9", () => {
  it("of the server: it is restarted on the same port with what was committed", async () => {
    const { dataDir, url } = await open("start", { dataDir: join(temporary(), "state") })
    await run(url, "create table t as select generate_series(1, 1000) as x")
    for (let round = 0; round < 2; round++) {
      const before = postmaster(dataDir)
      process.kill(before, "SIGKILL")
      await eventually("the server is back", async () => postmaster(dataDir) !== before && (await answers(url)))
      assert.deepStrictEqual(await run(url, "select count(*)::int as n from t"), [{ n: 1000 }])
    }
  })

  it("of the owner: its server stops by itself, and the next owner finds what was committed", async () => {
    const dataDir = join(temporary(), "state")
    const owner = await child("start", dataDir, "create table t as select 7 as x", 60_000)
    const server = postmaster(dataDir)
    await owner.kill()
    await eventually("the server stops", () => lifeOf(server) === undefined)
    const next = await open("start", { dataDir })
    assert.deepStrictEqual(await run(next.url, "select x from t"), [{ x: 7 }])
  })

  it("of the owner and its watchdog: the next owner stops the orphaned server and starts a new one", async () => {
    const dataDir = join(temporary(), "state")
    const owner = await child("start", dataDir, "create table t as select 7 as x", 60_000)
    const server = postmaster(dataDir)
    const [watchdog = 0] = watchdogs(dataDir)
    assert.isAbove(watchdog, 0)
    process.kill(watchdog, "SIGKILL")
    await owner.kill()
    await new Promise((resolve) => setTimeout(resolve, 300))
    assert.isTrue(await answers(owner.url), "an orphan is what this is about")
    const next = await open("start", { dataDir })
    assert.notStrictEqual(postmaster(dataDir), server)
    assert.deepStrictEqual(await run(next.url, "select x from t"), [{ x: 7 }])
  })

  it("of everything at once: stale files block no start, even if they name a living process", async () => {
    const dataDir = join(temporary(), "state")
    const owner = await child("start", dataDir, "create table t as select 7 as x", 60_000)
    for (const pid of [...watchdogs(dataDir), postmaster(dataDir), owner.pid]) process.kill(pid, "SIGKILL")
    await owner.ended
    const file = join(dataDir, "postgres/postmaster.pid")
    writeFileSync(file, readFileSync(file, "utf8").replace(/^\d+/, String(process.pid)))
    writeFileSync(join(dataDir, `lock/own-${process.pid}-0`), "")
    const next = await open("start", { dataDir })
    assert.deepStrictEqual(await run(next.url, "select x from t"), [{ x: 7 }])
  })

  it("while a cluster is created: the next start creates it", async () => {
    const dataDir = join(temporary(), "state")
    const making = child("start", dataDir)
    making.catch(() => undefined)
    await eventually(
      "it is being created",
      () => existsSync(dataDir) && readdirSync(dataDir).some((name) => name.startsWith("postgres.init-"))
    )
    await cleanups.at(-1)?.()
    assert.strictEqual((await open("start", { dataDir })).started, "initialised")
  })
})

describe("a full disk", () => {
  const noTmpfs = "a small file system cannot be mounted. try: as root in a container"
  const mount = (size: string): string | undefined => {
    const directory = temporary()
    if (spawnSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", directory]).status !== 0) return undefined
    cleanups.push(() => execFileSync("umount", [directory]))
    return directory
  }

  it("fails with a clear error while the cluster is created, and leaves no half-created one", async ({ skip }) => {
    const directory = mount("30m")
    if (directory === undefined) return skipWithout("tmpfs", noTmpfs, skip)
    const error = await refused("start", { dataDir: join(directory, "state") })
    assert.strictEqual(error.reason, "DiskFull")
    assert.notInclude(spawnSync("ls", [join(directory, "state")], { encoding: "utf8" }).stdout, "postgres")
  })

  it("fails with a clear error at a start, and starts once there is space", async ({ skip }) => {
    const directory = mount("120m")
    if (directory === undefined) return skipWithout("tmpfs", noTmpfs, skip)
    const dataDir = join(directory, "state")
    await (await open("start", { dataDir })).close()
    spawnSync("dd", ["if=/dev/zero", `of=${join(directory, "fill")}`, "bs=64k"])
    assert.strictEqual((await refused("start", { dataDir })).reason, "DiskFull")
    rmSync(join(directory, "fill"))
    assert.strictEqual((await open("start", { dataDir })).started, "restarted")
  })
})

describe("lock", () => {
  it("reports its holder, and is free after a release and after the holder's death", async () => {
    const state = temporary()
    assert.isUndefined(tryAcquire(state, "own"))
    for (const kind of ["own", "use"] as const) {
      assert.deepInclude(tryAcquire(state, kind) ?? {}, { kind: "own", pid: process.pid })
    }
    release(state, "own")
    const dead = spawn("sleep", ["60"])
    const name = `own-${dead.pid}-${lifeOf(dead.pid as number)}`
    writeFileSync(join(state, "lock", name), "")
    assert.strictEqual(tryAcquire(state, "use")?.pid, dead.pid)
    dead.kill("SIGKILL")
    await eventually("the process is gone", () => lifeOf(dead.pid as number) === undefined)
    assert.isUndefined(tryAcquire(state, "use"))
  })
})
