// Fetches the jars of Kafka and Pulsar with Maven, once, into a cache outside of the checkout; finds Java and other programs.
import { spawn, spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { homedir } from "node:os"
import { dirname, join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { findProgram } from "../src/postgres/embedded/binaries.ts"
import { isAlive, lifeOf } from "../src/postgres/embedded/lock.ts"
import { StackError } from "./errors.ts"

/** The services that run from jars, and their versions. */
export const versions = { kafka: "4.1.0", pulsar: "4.0.7" } as const
export type Jars = keyof typeof versions

/** The path of a program, by the PATH (for `java`, by JAVA_HOME first). Undefined if it is not installed. */
export const find = (program: string): string | undefined => {
  const home = program === "java" ? process.env["JAVA_HOME"] : undefined
  return findProgram(program, home === undefined ? [] : [join(home, "bin")])
}

/** Additional arguments of every JVM: MILLRACE_STACK_JVM, which tests set for brokers that live for a minute. */
export const jvmFlags = (): ReadonlyArray<string> =>
  (process.env["MILLRACE_STACK_JVM"] ?? "").split(" ").filter((word) => word !== "")

/** The path of `java`. Throws a `StackError` with the reason `Missing`. */
export const java = (): string => {
  const found = find("java")
  if (found !== undefined) return found
  throw new StackError({
    reason: "Missing",
    message:
      "java is not installed, and Kafka and Pulsar run on it. try: install a JRE of version 17 or newer (apt-get install openjdk-17-jre-headless), or use a broker that runs elsewhere (MILLRACE_KAFKA_BROKERS, MILLRACE_PULSAR_URL), or Docker"
  })
}

const oldestJava = 17
const installJava = "apt-get install openjdk-17-jre-headless"

/** The version of a Java installation, from its `release` file, else from the program itself; undefined if it does not run. */
const versionOfJava = (program: string): number | undefined => {
  const read = () => {
    try {
      return readFileSync(join(dirname(realpathSync(program)), "..", "release"), "utf8")
    } catch {
      const { status, stderr } = spawnSync(program, ["-version"], { encoding: "utf8" })
      return status === 0 ? stderr : ""
    }
  }
  const [, version] = /(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)/.exec(read()) ?? []
  return version === undefined ? undefined : Number(version)
}

/** Why Kafka and Pulsar cannot run here for want of Java, and what to try; undefined if they can. */
export const javaProblem = (): string | undefined => {
  const program = find("java")
  if (program === undefined) return `java is not installed. try: ${installJava}`
  const version = versionOfJava(program)
  if (version === undefined) return `${program} does not run. try: ${installJava}`
  if (version >= oldestJava) return undefined
  return `${program} is version ${version}, and Kafka and Pulsar need ${oldestJava} or newer. try: ${installJava}`
}

/** The folder of downloads: MILLRACE_CACHE, else a folder in the user's cache. */
export const cache = (): string =>
  process.env["MILLRACE_CACHE"] ?? join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "millrace")

/** The folder of a service's jars if they are complete, else undefined. */
export const cached = (name: Jars): string | undefined => {
  const folder = join(cache(), `${name}-${versions[name]}`)
  try {
    const { jars } = JSON.parse(readFileSync(join(folder, "complete.json"), "utf8")) as { readonly jars: number }
    return readdirSync(folder).filter((file) => file.endsWith(".jar")).length === jars ? folder : undefined
  } catch {
    return undefined
  }
}

const patienceMs = 600_000

/**
 * Returns the folder of a service's jars, and fetches them first if they are missing. The folder appears complete or not at all; processes
 * that want it at the same time fetch it once. Rejects with the reason `Missing` (no `mvn`) or `Download`.
 */
export const jars = async (name: Jars, say: (line: string) => void = () => undefined): Promise<string> => {
  const target = join(cache(), `${name}-${versions[name]}`)
  const deadline = Date.now() + patienceMs
  for (;;) {
    const found = cached(name)
    if (found !== undefined) return found
    mkdirSync(cache(), { recursive: true })
    const release = lock(`${target}.lock`)
    if (release === undefined) {
      if (Date.now() > deadline) throw download(name, `another process holds ${target}.lock for ten minutes`)
      await sleep(250)
      continue
    }
    try {
      return cached(name) ?? (await fetch(name, target, say))
    } finally {
      release()
    }
  }
}

const fetch = async (name: Jars, target: string, say: (line: string) => void): Promise<string> => {
  const mvn = find("mvn")
  if (mvn === undefined) {
    throw new StackError({
      reason: "Missing",
      message: `mvn is not installed, and it fetches the jars of ${name}. try: install Maven (apt-get install maven), or use a broker that runs elsewhere, or Docker`
    })
  }
  const fresh = `${target}.part-${process.pid}`
  const began = Date.now()
  say(`fetching ${name} ${versions[name]} with Maven, once`)
  rmSync(fresh, { recursive: true, force: true })
  mkdirSync(fresh, { recursive: true })
  const pom = join(dirname(fileURLToPath(import.meta.url)), "poms", `${name}.xml`)
  const goal = ["dependency:copy-dependencies", `-DoutputDirectory=${fresh}`, "-DincludeScope=runtime"]
  // Maven writes beside the POM, so it gets a copy
  writeFileSync(join(fresh, "pom.xml"), readFileSync(pom))
  try {
    const { code, output } = await execute([mvn, "-q", "-B", "-f", join(fresh, "pom.xml"), ...goal])
    const files = readdirSync(fresh).filter((file) => file.endsWith(".jar"))
    if (code !== 0 || files.length === 0) throw download(name, output)
    writeFileSync(join(fresh, "complete.json"), `${JSON.stringify({ jars: files.length })}\n`)
    rmSync(target, { recursive: true, force: true })
    renameSync(fresh, target)
    say(`fetched ${files.length} jars in ${Math.round((Date.now() - began) / 1000)} s`)
    return target
  } finally {
    rmSync(fresh, { recursive: true, force: true })
  }
}

const download = (name: Jars, output: string) => {
  const lines = output.split("\n").filter((line) => /ERROR|FATAL|lock/.test(line))
  const said = (lines.length > 0 ? lines : output.split("\n")).slice(0, 5).join("\n")
  return new StackError({
    reason: "Download",
    message: `the jars of ${name} ${versions[name]} could not be fetched: ${said || "mvn printed nothing"}\ntry: the same again (what was fetched is kept); behind a proxy or mirror, name it in ~/.m2/settings.xml`
  })
}

const execute = async ([command = "", ...args]: ReadonlyArray<string>) => {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] })
  let output = ""
  const collect = (chunk: Buffer) => (output = (output + chunk.toString()).slice(-50_000))
  child.stdout.on("data", collect)
  child.stderr.on("data", collect)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject)
    child.once("close", resolve)
  })
  return { code, output }
}

/** Takes a lock file and returns its release, or undefined while a live process holds it. A lock file of a dead process is removed. */
export const lock = (file: string): (() => void) | undefined => {
  const mine = `${process.pid} ${lifeOf(process.pid)}`
  try {
    writeFileSync(file, mine, { flag: "wx" })
    return () => rmSync(file, { force: true })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error
  }
  try {
    const [pid, life = ""] = readFileSync(file, "utf8").split(" ")
    if (life !== "" && !isAlive(Number(pid), life)) rmSync(file, { force: true })
  } catch {
    // it was released between the two attempts
  }
  return undefined
}
