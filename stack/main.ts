// `npm run stack -- …`: starts Kafka, PostgreSQL and Pulsar in the background, for development and tests. Not part of the package.
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { down, interfere, status, up } from "./client.ts"
import { daemon, type Deed, deeds } from "./daemon.ts"
import { StackError } from "./errors.ts"
import { cached, jars } from "./jars.ts"
import { kafkaImage } from "./kafka.ts"
import { given, useDocker } from "./pick.ts"
import { pulsarImage } from "./pulsar.ts"
import { type Name, names } from "./service.ts"

const usage = `npm run stack -- COMMAND
  up [--services kafka,postgres,pulsar] [--json]   start services in the background and wait; those that run already are used
  status [--json]                                  show what runs
  kill | stop | start | restart NAME               do that to one service
  fetch [--services kafka,pulsar]                  only fetch what they need, so that a first start does not wait
  down                                             stop all and delete their data
Options: --root DIR  the folder of their files (.stack in the checkout)
Each service comes from the environment (MILLRACE_KAFKA_BROKERS, …), else from a Docker engine that answers, else from java,
Maven and npm. MILLRACE_STACK=local ignores Docker; MILLRACE_CACHE is the folder of the jars.`

const print = (line: string): void => void process.stdout.write(`${line}\n`)
const refuse = (message: string): never => {
  throw new StackError({ reason: "Refused", message: `${message}\n${usage}` })
}
const nameOf = (text: string): Name =>
  names.find((name) => name === text) ?? refuse(`unknown service "${text}"; the services are ${names.join(", ")}.`)

/** Fetches the jars of services that would run from them, and creates what the starts of Kafka and Pulsar have in common. */
const fetch = async (wanted: ReadonlyArray<Name>): Promise<void> => {
  for (const name of wanted) {
    if (name === "postgres" || given(name) !== undefined || (await useDocker())) continue
    await jars(name, print)
    await (name === "kafka" ? kafkaImage() : pulsarImage())
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
      process.stderr.write(`the jars of ${name} are fetched first, once; this may take some minutes\n`)
    }
    const endpoints = await up(root, wanted)
    if (values.json) print(JSON.stringify(endpoints))
    else for (const [name, value] of Object.entries(endpoints)) print(`${name}=${value}`)
  } else if (command === "down") print((await down(root)) ? "stopped" : "nothing ran")
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
  } else refuse(command === "" ? "no command is given." : `unknown command "${command}".`)
}

try {
  await main()
} catch (error) {
  const known = error instanceof StackError || (error as NodeJS.ErrnoException).code?.startsWith("ERR_PARSE_ARGS")
  process.stderr.write(`${known === true ? (error as Error).message : String((error as Error).stack)}\n`)
  process.exitCode = 1
}
