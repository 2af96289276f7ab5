// One Kafka and one PostgreSQL for two implementations of the same application, the peer's and Millrace's, both started the same way and
// measured by the same Java harness (`peer/`).
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { find, java } from "../stack/jars.ts"
import { kafka } from "../stack/kafka.ts"
import { postgres } from "../stack/postgres.ts"

const folder = join(import.meta.dirname, "peer")
const root = join(import.meta.dirname, "..")

/** The two implementations. */
export const sides = ["peer", "millrace"] as const
export type Side = (typeof sides)[number]
/** Both, or the one that is named. Throws if neither has that name. */
export const chosenSides = (only: string | undefined): ReadonlyArray<Side> => {
  const chosen = sides.filter((side) => only === undefined || only === side)
  if (chosen.length === 0) throw new Error(`--only is ${only}; it must be ${sides.join(" or ")}`)
  return chosen
}

/** The services that both run on, and the environment of the processes that use them. */
export interface Stack {
  readonly directory: string
  readonly environment: Readonly<Record<string, string>>
}
/** How Millrace is started. */
export interface Shape {
  /** The roles of each of its processes. */
  readonly processes: ReadonlyArray<string>
  /** Flags for node, such as `--cpu-prof`. */
  readonly node: ReadonlyArray<string>
}
/** The figures that the harness printed, by name. */
export type Figures = Readonly<Record<string, string>>

/** Reads `--processes projections+relay` (one process with both) or `projections,relay` (one each), `--profile DIR`, and flags of node. */
export const shapeOf = (processes: string, profile: string | undefined, flags = ""): Shape => ({
  processes: processes.split(",").map((roles) => roles.replaceAll("+", ",")),
  node: [
    ...flags.split(" ").filter((flag) => flag !== ""),
    ...(profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profile}`])
  ]
})

/** This process's environment without settings of Millrace, which would change what is measured, such as a Pulsar to relay to. */
const plainEnvironment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith("MILLRACE_"))
)

const run = async (
  command: string,
  args: ReadonlyArray<string>,
  options: { readonly cwd: string; readonly env: object }
) => {
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...plainEnvironment, ...options.env },
    stdio: ["ignore", "pipe", "inherit"]
  })
  let output = ""
  const end = () => child.kill()
  process.once("exit", end)
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
  const [code] = (await once(child, "close")) as [number | null]
  process.removeListener("exit", end)
  return { code, output }
}

const sources = (at: string): ReadonlyArray<string> =>
  readdirSync(at, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))

/** Compiles the peer and fetches its jars, unless that was done since it last changed. */
const build = async (): Promise<void> => {
  const built = join(folder, "target", "built")
  const since = existsSync(built) ? statSync(built).mtimeMs : 0
  const changed = [join(folder, "pom.xml"), ...sources(join(folder, "src"))].some(
    (file) => statSync(file).mtimeMs > since
  )
  if (!changed) return
  const mvn = find("mvn")
  if (mvn === undefined) throw new Error("mvn is not installed, and it builds the peer. try: apt-get install maven")
  process.stderr.write("building the peer; the first time its jars are fetched\n")
  const { code, output } = await run(mvn, ["-q", "-B", "-DskipTests", "package"], { cwd: folder, env: {} })
  if (code !== 0) throw new Error(`the peer could not be built:\n${output}`)
  writeFileSync(built, "")
}

/** Opens a stack for as long as `use` runs, with new directories and free ports, and ends its processes by their ids. */
export const withStack = async <A>(use: (stack: Stack) => Promise<A>): Promise<A> => {
  await build()
  const directory = mkdtempSync(join(tmpdir(), "millrace-bench-"))
  // the services end with this process; the harness ends the processes that it started
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1))
  const services = []
  try {
    // members of both implementations join one after another, and a rebalance waits for them
    const properties = { "group.initial.rebalance.delay.ms": "200" }
    const broker = await kafka(join(directory, "kafka"), { heapMb: 1024, properties })
    services.push(broker)
    const database = await postgres(join(directory, "postgres"))
    services.push(database)
    const brokers = broker.endpoints.MILLRACE_KAFKA_BROKERS ?? ""
    const url = database.endpoints.MILLRACE_DATABASE_URL ?? ""
    const { hostname, password, pathname, port, username } = new URL(url)
    const environment = {
      MILLRACE_KAFKA_BROKERS: brokers,
      MILLRACE_DATABASE_URL: url,
      KAFKA_BOOTSTRAP: brokers,
      PG_JDBC: `jdbc:postgresql://${hostname}:${port}${pathname}?user=${username}&password=${password}`,
      PEER_STATE: join(directory, "streams"),
      BROKER_PID: String(broker.pid()),
      POSTGRES_PID: String(database.pid())
    }
    return await use({ directory, environment })
  } finally {
    for (const service of services.toReversed()) await service.close()
    rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
  }
}

const quiet = [
  "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
  "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.streams.kstream.internals.KStreamWindowAggregate=error",
  "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients.producer.internals.Sender=error"
]
const classpath = ["-cp", `${join(folder, "target", "classes")}:${join(folder, "target", "libs", "*")}`]

/** Runs a command of the harness, and returns the `name value` lines that it printed. Rejects if it fails, except for `verify`, where that is an answer. */
export const harness = async (stack: Stack, args: ReadonlyArray<string>) => {
  const options = ["-Xmx768m", "-XX:+UseSerialGC", ...quiet, ...classpath, "peer.Main", ...args]
  const { code, output } = await run(java(), options, { cwd: root, env: stack.environment })
  const lines = output.trim().split("\n")
  if (code !== 0 && args[0] !== "verify") throw new Error(`the harness ended with ${code}:\n${output}`)
  const figures = Object.fromEntries(lines.map((line) => [/^\S+/.exec(line)?.[0] ?? "", line.replace(/^\S+\s+/, "")]))
  return { code, output, figures: figures as Figures }
}

const quoted = (words: ReadonlyArray<string>) => words.map((word) => `'${word}'`).join(" ")
const millrace = (...args: ReadonlyArray<string>) => [join(root, "bin", "millrace.mjs"), ...args]

/** The command line that starts an implementation. */
export const commandOf = (side: Side, shape: Shape): string => {
  if (side === "peer")
    return quoted([java(), "-Xms1g", "-Xmx1g", "-XX:+UseParallelGC", ...quiet, ...classpath, "peer.Main", "app"])
  const commands = shape.processes.map((roles) =>
    quoted([process.execPath, ...shape.node, ...millrace("start", "--roles", roles, "--json")])
  )
  const [only = ""] = commands
  if (commands.length === 1) return only
  return [join(folder, "all.sh"), ...commands.map((command) => `"${command}"`)].join(" ")
}

/** Empties broker and database, and runs the commands by which Millrace creates its own topics and tables. */
export const prepare = async (stack: Stack, side: Side): Promise<ReadonlyArray<string>> => {
  rmSync(stack.environment["PEER_STATE"] ?? "", { recursive: true, force: true })
  mkdirSync(join(stack.directory, "logs"), { recursive: true })
  if (side === "peer") return []
  await harness(stack, ["reset", "--bare"])
  for (const args of [
    ["topics", "apply"],
    ["migrate", "--adopt"]
  ]) {
    const { code, output } = await run(process.execPath, millrace(...args), { cwd: root, env: stack.environment })
    if (code !== 0) throw new Error(`millrace ${args.join(" ")} ended with ${code}:\n${output}`)
  }
  return ["--prepared"]
}

/** Measures an implementation: `throughput`, `latency` or `recovery`, with the harness's flags for it. Outputs that never came are named on standard error. */
export const measure = async (
  stack: Stack,
  side: Side,
  what: "throughput" | "latency" | "recovery",
  shape: Shape,
  flags: ReadonlyArray<string>
): Promise<Figures> => {
  const prepared = await prepare(stack, side)
  const log = join(stack.directory, "logs", `${side}.log`)
  const app = ["--app", commandOf(side, shape), "--log", log]
  const { figures } = await harness(stack, [what, ...app, ...prepared, ...flags]).catch((error: unknown) => {
    // the stack's directory goes, and the log with it
    process.stderr.write(`the last lines of ${side}:\n${readFileSync(log, "utf8").split("\n").slice(-20).join("\n")}\n`)
    throw error
  })
  for (const name of ["rows_missing", "updates_missing"]) {
    const missing = figures[name] ?? ""
    if (missing !== "") process.stderr.write(`${side}: ${missing} did not come in time\n`)
  }
  return figures
}

/** Compares tables and topics with the model's. Differences are written to standard error. */
export const verify = async (stack: Stack, workload: ReadonlyArray<string>): Promise<boolean> => {
  const { code, output } = await harness(stack, ["verify", "--out", join(stack.directory, "verify"), ...workload])
  const lines = output.trim().split("\n")
  for (const line of code === 0 ? [] : lines) process.stderr.write(`${line}\n`)
  return code === 0
}

/** How many bytes the broker has of each topic, without internal ones. */
export const topicBytes = (stack: Stack): Readonly<Record<string, number>> => {
  const bytes: Record<string, number> = {}
  const data = join(stack.directory, "kafka", "data")
  for (const folder of readdirSync(data)) {
    const topic = /^([^_].*)-\d+$/.exec(folder)?.[1]
    if (topic === undefined) continue
    for (const file of sources(join(data, folder)).filter((file) => file.endsWith(".log")))
      bytes[topic] = (bytes[topic] ?? 0) + statSync(file).size
  }
  return bytes
}

/** A figure as a number; NaN if the harness did not print it. */
export const number = (figures: Figures, name: string): number => Number(figures[name])
