// The example of containers: its compose file fits what it names, and its processes do on real services what the page says. Docker is not needed.
import { readFileSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { parse } from "yaml"
import { versions } from "../../../stack/jars.ts"
import { shared } from "../../../stack/testing.ts"
import { type Copy, copyOf, runIn, runSteps, startInCopy } from "../../support/example.ts"
import { databaseOn } from "../../support/postgres.ts"
import { needing } from "../../support/stack.ts"

interface Service {
  readonly image?: string
  readonly build?: string
  readonly command?: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>
  readonly healthcheck?: { readonly test: ReadonlyArray<string> }
  readonly ports?: ReadonlyArray<string>
  readonly network_mode?: string
}
interface Compose {
  readonly services: Readonly<Record<string, Service>>
  readonly volumes: Readonly<Record<string, null>>
}
const root = fileURLToPath(new URL("../../..", import.meta.url))
const composeOf = (path: string) => parse(readFileSync(join(root, path), "utf8"), { merge: true }) as Compose
const { services } = composeOf("examples/compose/docker-compose.yml")
const named = (name: string) => {
  const service = services[name]
  if (service === undefined) throw new Error(`the compose file has no service ${name}`)
  return service
}
const ours = ["setup", "projections", "api", "consumer"] as const
const theirs = ["kafka", "postgres", "pulsar"] as const

describe("docker-compose.yml", () => {
  test("has the images of the services that the tests run against", () => {
    const { services: known } = composeOf("docker-compose.yml")
    for (const name of theirs) {
      expect(named(name).image).toBe(known[name]?.image)
      expect(named(name).healthcheck).toBeDefined()
    }
    expect(named("kafka").image).toBe(`apache/kafka:${versions.kafka}`)
    expect(named("pulsar").image).toBe(`apachepulsar/pulsar:${versions.pulsar}`)
    const dockerfile = readFileSync(join(root, "examples/compose/Dockerfile"), "utf8")
    const { devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
      devDependencies: Record<string, string>
    }
    expect(/^FROM node:(\d+)-slim$/m.exec(dockerfile)?.[1]).toBe(devDependencies["node"]?.split(".")[0])
  })
  test("gives every process of the application the addresses of its services", () => {
    for (const name of ours)
      expect(named(name)).toMatchObject({
        build: ".",
        environment: {
          MILLRACE_KAFKA_BROKERS: "kafka:9092",
          MILLRACE_DATABASE_URL: "postgres://millrace:millrace@postgres:5432/millrace",
          MILLRACE_PULSAR_URL: "ws://pulsar:8080",
          MILLRACE_PULSAR_ADMIN_URL: "http://pulsar:8080"
        }
      })
    expect(named("kafka").environment).toMatchObject({ KAFKA_ADVERTISED_LISTENERS: "PLAINTEXT://kafka:9092" })
    expect(named("pulsar").environment).toMatchObject({ PULSAR_PREFIX_webSocketServiceEnabled: "true" })
    expect(named("postgres").environment).toEqual({
      POSTGRES_USER: "millrace",
      POSTGRES_PASSWORD: "millrace",
      POSTGRES_DB: "millrace"
    })
  })
  test("starts each process after what it needs, and waits for nothing that has no health", () => {
    expect(Object.keys(named("setup").depends_on ?? {})).toEqual([...theirs])
    for (const { depends_on = {} } of Object.values(services))
      for (const [name, { condition }] of Object.entries(depends_on)) {
        expect(Object.keys(services)).toContain(name)
        if (condition === "service_healthy") expect(named(name).healthcheck).toBeDefined()
      }
  })
  test("asks for the health of a process at the port that its command has", () => {
    for (const name of ["projections", "api"]) {
      const { command = [], healthcheck } = named(name)
      expect(healthcheck?.test.join(" ")).toContain(`http://127.0.0.1:${command.at(-1)}/readyz`)
    }
    // everyone who reaches it is let in, so only this machine may
    expect(named("api").command!.slice(-5)).toEqual(["--host", "0.0.0.0", "--insecure", "--port", "7070"])
    expect(named("api").ports).toEqual(["127.0.0.1:7070:7070"])
  })
})

const suite = await needing("kafka", "postgres", "pulsar")
suite("the processes of docker-compose.yml, on Kafka, PostgreSQL and Pulsar", () => {
  const scope = Effect.runSync(Scope.make())
  const run = <A>(effect: Effect.Effect<A, unknown, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
  let copy: Copy
  let environment: Readonly<Record<string, string>>
  let addresses = {}
  /** A process of the file, at a free port of this machine alone. */
  const start = (name: string) => {
    const command = named(name).command!.map((word) => (/^\d+$/.test(word) ? "0" : word))
    return startInCopy(copy, environment, command.join(" ").replace("0.0.0.0", "127.0.0.1"))
  }
  beforeAll(async () => {
    copy = await run(copyOf("compose"))
    // brokers are shared by test runs, so each has topics of its own
    const own = `stock-${process.pid}-${Date.now().toString(36)}.`
    for (const name of readdirSync(copy.folder).filter((file) => file.endsWith(".ts"))) {
      const file = join(copy.folder, name)
      writeFileSync(file, readFileSync(file, "utf8").replaceAll(/"stock\.(?=\w+\.v1")/g, `"${own}`))
    }
    const endpoints = await run(shared("kafka", "postgres", "pulsar"))
    const { url } = await run(databaseOn(endpoints.MILLRACE_DATABASE_URL!))
    environment = {
      MILLRACE_KAFKA_BROKERS: endpoints.MILLRACE_KAFKA_BROKERS!,
      MILLRACE_DATABASE_URL: url,
      MILLRACE_PULSAR_URL: endpoints.MILLRACE_PULSAR_ADMIN_URL!.replace(/^http/, "ws"),
      MILLRACE_PULSAR_ADMIN_URL: endpoints.MILLRACE_PULSAR_ADMIN_URL!
    }
    const [shell, flag, setup] = named("setup").command!
    expect([shell, flag]).toEqual(["sh", "-c"])
    expect(runIn(copy, environment, `${setup} && echo "set up"`)).toMatch(/set up\n$/)

    const projections = await run(start("projections"))
    await run(projections.said(/projections at http/))
    const api = await run(start("api"))
    const [, port] = /:(\d+)$/.exec(await run(api.said(/gateway, api, relay at http:\S+:\d+/)))!
    addresses = { "http://127.0.0.1:7070": `http://127.0.0.1:${port}` }
    const consumer = await run(start("consumer"))
    await run(consumer.said(/waiting for stock levels/))
    consumer.process.stdout!.on("data", () => writeFileSync(join(copy.folder, "consumer.log"), consumer.output()))
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  test("do what the page says", { timeout: 120_000 }, () =>
    runSteps(copy, environment, addresses, `docker() { case $2 in exec) shift 3; "$@";; logs) cat "$3.log";; esac; }`)
  )
})
