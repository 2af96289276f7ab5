// Decides where a service comes from: the environment, else Docker, else this machine; or says why it cannot be started.
import { mkdirSync } from "node:fs"
import { findBinaries } from "../src/postgres/embedded/binaries.ts"
import { container, dockerAnswers } from "./docker.ts"
import { StackError } from "./errors.ts"
import { cached, find, javaProblem } from "./jars.ts"
import { kafka, type KafkaOptions } from "./kafka.ts"
import { postgres, type PostgresOptions } from "./postgres.ts"
import { pulsar, type PulsarOptions } from "./pulsar.ts"
import { type Endpoints, type Local, type Name, variables } from "./service.ts"

/** Options of services. Those of the environment and of Docker ignore them. */
export interface Options {
  readonly kafka?: KafkaOptions
  readonly postgres?: PostgresOptions
  readonly pulsar?: PulsarOptions
  readonly say?: (line: string) => void
}

/** The endpoints of a service in the environment; undefined unless all of them are set. */
export const given = (name: Name): Endpoints | undefined => {
  const found = variables[name].map((variable) => [variable, process.env[variable] ?? ""] as const)
  return found.every(([, value]) => value !== "") ? Object.fromEntries(found) : undefined
}

/** Why a service cannot be started on this machine, in a sentence that ends with what to try; undefined if it can. */
export const obstacle = async (name: Name): Promise<string | undefined> => {
  if (await useDocker()) return undefined
  if (name === "postgres") {
    try {
      findBinaries()
      return undefined
    } catch (error) {
      return (error as Error).message
    }
  }
  const java = javaProblem()
  const lacking = [
    ...(java === undefined ? [] : [java.slice(0, java.indexOf(". try: "))]),
    ...((cached(name) ?? find("mvn")) ? [] : ["mvn is not installed"])
  ]
  if (lacking.length === 0) return undefined
  return `${name} needs ${variables[name].join(" and ")}, or a Docker engine that answers, or java and mvn; ${lacking.join(", and ")}. try: apt-get install openjdk-17-jre-headless maven`
}

/** Whether services run in containers: a Docker engine answers, and MILLRACE_STACK is not `local`. */
export const useDocker = async () => process.env["MILLRACE_STACK"] !== "local" && (await dockerAnswers())

/** Starts a service in a container, or as processes of this machine with their files in `directory`. */
export const launch = async (name: Name, directory: string, options: Options = {}): Promise<Local> => {
  const reason = await obstacle(name)
  if (reason !== undefined) throw new StackError({ reason: "Missing", message: reason })
  if (await useDocker()) return container(name)
  mkdirSync(directory, { recursive: true })
  const say = options.say === undefined ? {} : { say: options.say }
  if (name === "kafka") return kafka(directory, { ...say, ...options.kafka })
  if (name === "pulsar") return pulsar(directory, { ...say, ...options.pulsar })
  return postgres(directory, options.postgres)
}

/** A service of the environment, which cannot be stopped or started, else one that `launch` starts. */
export const pick = async (name: Name, directory: string, options: Options = {}): Promise<Local> => {
  const endpoints = given(name)
  if (endpoints === undefined) return launch(name, directory, options)
  const refuse = async () => {
    const message = `${name} comes from the environment (${variables[name].join(" and ")}), so this command must not stop or start it. try: the same without ${variables[name].join(" and ")}`
    throw new StackError({ reason: "Refused", message })
  }
  const close = async () => undefined
  return {
    name,
    from: "environment",
    endpoints,
    pid: () => undefined,
    kill: refuse,
    stop: refuse,
    start: refuse,
    close
  }
}
