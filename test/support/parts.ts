// The parts that tests need (services, programs, the native client), and what happens to a test whose part is missing.
//
// A test whose part is missing is skipped, with the reason and the remedy in its title. It fails instead if MILLRACE_EXPECT lists the part.
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { axePath, installedChromium, isPackagedChromiumHere } from "../../site/chromium.ts"
import { dockerAnswers } from "../../stack/docker.ts"
import { cached, find, javaProblem } from "../../stack/jars.ts"
import { type Name, names } from "../../stack/service.ts"
import { nativeProblem } from "./pulsar-client.ts"

/** Why a part is missing and how to get it, or undefined if it is there. */
type Look = () => string | undefined | Promise<string | undefined>

const program = (name: string, use: string, install: string) => () =>
  spawnSync(name, ["--version"]).error === undefined ? undefined : `${name} is not installed; ${use}. try: ${install}`

const registry: Look = async () => {
  const answer = await fetch("https://registry.npmjs.org/-/ping", { signal: AbortSignal.timeout(10_000) }).catch(
    (error: unknown) => error as Error
  )
  if (!(answer instanceof Error) && answer.ok) return undefined
  const reason = answer instanceof Error ? answer.message : `it answers ${answer.status}`
  return `the npm registry cannot be reached (${reason}). try: connect to the internet`
}

const looks = {
  native: nativeProblem,
  java: javaProblem,
  maven: () =>
    find("mvn") !== undefined || (cached("kafka") !== undefined && cached("pulsar") !== undefined)
      ? undefined
      : "mvn is not installed; it fetches the jars of Kafka and Pulsar. try: apt-get install maven",
  docker: async () =>
    (await dockerAnswers()) ? undefined : "no Docker engine answers. try: start one, or set DOCKER_HOST",
  chromium: () =>
    installedChromium() === undefined && !isPackagedChromiumHere()
      ? "Chromium is not installed. try: npm run docs -- --browser, which installs one for itself on Linux, or name one in CHROMIUM"
      : undefined,
  axe: () =>
    existsSync(axePath)
      ? undefined
      : "axe-core is not installed; it looks for what people cannot perceive or use. try: npm run docs -- --browser",
  registry,
  openssl: program("openssl", "it makes certificates", "apt-get install openssl"),
  psql: program("psql", "a test connects with it", "apt-get install postgresql-client"),
  tmpfs: () =>
    process.platform === "linux" && process.getuid?.() === 0
      ? undefined
      : "only root on Linux can mount a small file system. try: run the tests as root in a container"
} as const satisfies Record<string, Look>

/** A part of this machine, other than a service. */
export type MachinePart = keyof typeof looks
/** A part that a test may need. */
export type Part = Name | MachinePart

const isService = (part: Part): part is Name => names.some((name) => name === part)
export const services = (parts: ReadonlyArray<Part>): ReadonlyArray<Name> => parts.filter(isService)
const all: ReadonlyArray<Part> = [...names, ...(Object.keys(looks) as ReadonlyArray<MachinePart>)]

/** The parts that a text lists, separated by commas. Throws if it names an unknown part. */
export const partsOf = (text: string): ReadonlyArray<Part> =>
  text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "")
    .map((name) => {
      const part = all.find((one) => one === name)
      if (part === undefined) throw new Error(`MILLRACE_EXPECT lists "${name}"; the parts are ${all.join(", ")}`)
      return part
    })

/** The parts whose absence is a failure. */
export const expected: ReadonlySet<Part> = new Set(partsOf(process.env["MILLRACE_EXPECT"] ?? ""))

/** A part that is missing, and why. */
export interface Missing {
  readonly part: Part
  readonly reason: string
}

const known = new Map<MachinePart, ReturnType<Look>>()
const look = (part: MachinePart) => {
  if (!known.has(part)) known.set(part, looks[part]())
  return known.get(part)
}
/** The first of these parts that this machine does not have. */
export const missingOf = async (parts: ReadonlyArray<Part>): Promise<Missing | undefined> => {
  for (const part of parts) {
    const reason = isService(part) ? undefined : await look(part)
    if (reason !== undefined) return { part, reason }
  }
  return undefined
}
