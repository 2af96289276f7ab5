// `npm run stack -- …`: Kafka, PostgreSQL and Pulsar in the background, for development and tests. It is no part of the package.
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { down, interfere, status, up } from "./client.ts"
import { daemon, type Deed, deeds } from "./daemon.ts"
import { StackError } from "./errors.ts"
import { cached, jars } from "./jars.ts"
import { kafkaImage } from "./kafka.ts"
import { given, useDocker } from "./pick.ts"
import { type Name, names } from "./service.ts"

const usage = `npm run stack -- COMMAND
  up [--services kafka,postgres,pulsar] [--json]   start them in the background and wait; what runs already is joined
  status [--json]                                  what runs
  kill | stop | start | restart NAME               interfere with one
  fetch [--services kafka,pulsar]                  only fetch what they need, for a first start without a wait
  down                                             end them all; their data goes
Options: --root DIR  where their files lie (.stack in the checkout)
Endpoints that the environment gives (MILLRACE_KAFKA_BROKERS, …) are used as they are; else a Docker engine that answers;
else java, Maven and npm. MILLRACE_STACK=local leaves Docker alone, MILLRACE_CACHE says where jars are kept.`

const print = (line: string): void => void process.stdout.write(`${line}\n`)
const refuse = (message: string): never => {
  throw new StackError({ reason: "Refused", message: `${message}\n${usage}` })
}
const nameOf = (text: string): Name =>
  names.find((name) => name === text) ?? refuse(`there is no service "${text}", but ${names.join(", ")}.`)

/** Fetches the jars of services that would run from them, and makes Kafka's image by a first start. */
const fetch = async (wanted: ReadonlyArray<Name>): Promise<void> => {
  for (const name of wanted) {
    if (name === "postgres" || given(name) !== undefined || (await useDocker())) continue
    await jars(name, print)
    if (name === "kafka") await kafkaImage()
  }
}

const main = async (): Promise<void> => {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      services: { type: "string", default: "kafka,postgres" },
      json: { type: "boolean", default: false },
      root: { type: "string", default: join(dirname(fileURLToPath(import.meta.url)), "..", ".stack") },
      owner: { type: "string" }
    }
  })
  const root = resolve(values.root)
  const [command = "", service = ""] = positionals
  if (command === "up") {
    const wanted = values.services.split(",").map(nameOf)
    for (const name of wanted) {
      if (name === "postgres" || given(name) !== undefined || cached(name) !== undefined) continue
      process.stderr.write(`${name} is fetched first, once; that may take some minutes\n`)
    }
    const endpoints = await up(root, wanted)
    if (values.json) print(JSON.stringify(endpoints))
    else for (const [name, value] of Object.entries(endpoints)) print(`${name}=${value}`)
  } else if (command === "down") print((await down(root)) ? "ended" : "nothing ran")
  else if (command === "status") {
    const services = await status(root)
    if (values.json) return print(JSON.stringify(services ?? []))
    if (services === undefined) return print("nothing runs")
    for (const { endpoints, from, name, process: one, startMs } of services) {
      const where = one === null ? (from === "local" ? "stopped" : from) : `process ${one.pid}`
      print(`${name}  ${where}  started in ${(startMs / 1000).toFixed(1)} s  ${Object.values(endpoints).join("  ")}`)
    }
  } else if (deeds.includes(command as Deed)) await interfere(root, command as Deed, nameOf(service))
  else if (command === "fetch") await fetch(values.services.split(",").map(nameOf))
  else if (command === "daemon") {
    const [pid, life] = values.owner?.split(":") ?? []
    await daemon(root, pid === undefined || life === undefined ? undefined : { pid: Number(pid), life })
  } else refuse(command === "" ? "say what to do." : `there is no command "${command}".`)
}

try {
  await main()
} catch (error) {
  const known = error instanceof StackError || (error as NodeJS.ErrnoException).code?.startsWith("ERR_PARSE_ARGS")
  process.stderr.write(`${known === true ? (error as Error).message : String((error as Error).stack)}\n`)
  process.exitCode = 1
}
