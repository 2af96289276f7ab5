// The services as containers, if a Docker engine answers. Testcontainers removes them when their owner stops.
import { request } from "node:http"
import { connect } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { StackError } from "./errors.ts"
import { versions } from "./jars.ts"
import { freePorts, listening } from "./ports.ts"
import type { Endpoints, Local, Name } from "./service.ts"

/** Whether a Docker engine answers, at DOCKER_HOST or its usual socket; decided within a second. */
export const dockerAnswers = (): Promise<boolean> =>
  new Promise((resolve) => {
    const host = process.env["DOCKER_HOST"] ?? "unix:///var/run/docker.sock"
    if (host.startsWith("tcp://")) {
      const { hostname, port } = new URL(host)
      const socket = connect({ host: hostname, port: Number(port || 2375), timeout: 1_000 })
      const end = (answer: boolean) => {
        socket.destroy()
        resolve(answer)
      }
      socket.once("connect", () => end(true)).once("error", () => end(false))
      socket.once("timeout", () => end(false))
      return
    }
    const ping = request({ socketPath: host.replace(/^unix:\/\//, ""), path: "/_ping", timeout: 1_000 })
    ping.once("response", (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    ping.once("timeout", () => ping.destroy())
    ping.once("error", () => resolve(false))
    ping.end()
  })

interface Image {
  readonly image: string
  readonly ports: number
  readonly environment: (ports: ReadonlyArray<number>) => Record<string, string>
  readonly command: ReadonlyArray<string>
  readonly endpoints: (ports: ReadonlyArray<number>) => Endpoints
  /** The line of the log that says that it can be used. */
  readonly ready: RegExp
}

// A broker sends its own address to clients, so the port is the same inside and outside, and stays the same after a restart.
const images: Readonly<Record<Name, Image>> = {
  kafka: {
    image: `apache/kafka:${versions.kafka}`,
    ports: 1,
    environment: ([port]) => ({
      KAFKA_NODE_ID: "1",
      KAFKA_PROCESS_ROLES: "broker,controller",
      KAFKA_CONTROLLER_QUORUM_VOTERS: "1@127.0.0.1:9093",
      KAFKA_LISTENERS: `PLAINTEXT://0.0.0.0:${port},CONTROLLER://127.0.0.1:9093`,
      KAFKA_ADVERTISED_LISTENERS: `PLAINTEXT://127.0.0.1:${port}`,
      KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
      KAFKA_CONTROLLER_LISTENER_NAMES: "CONTROLLER",
      KAFKA_AUTO_CREATE_TOPICS_ENABLE: "false",
      KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: "1",
      KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS: "4",
      KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: "1",
      KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: "1",
      KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS: "4",
      KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: "0",
      KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS: "1000",
      KAFKA_BROKER_SESSION_TIMEOUT_MS: "3000",
      KAFKA_BROKER_HEARTBEAT_INTERVAL_MS: "500",
      KAFKA_HEAP_OPTS: "-Xmx512m"
    }),
    command: [],
    endpoints: ([port]) => ({ MILLRACE_KAFKA_BROKERS: `127.0.0.1:${port}` }),
    ready: /Kafka Server started/
  },
  postgres: {
    image: "postgres:18-alpine",
    ports: 1,
    environment: ([port]) => ({
      POSTGRES_USER: "millrace",
      POSTGRES_PASSWORD: "millrace",
      POSTGRES_DB: "millrace",
      PGPORT: String(port)
    }),
    command: ["postgres", "-c", "max_connections=300"],
    endpoints: ([port]) => ({ MILLRACE_DATABASE_URL: `postgres://millrace:millrace@127.0.0.1:${port}/millrace` }),
    ready: /listening on IPv4 address/
  },
  pulsar: {
    image: `apachepulsar/pulsar:${versions.pulsar}`,
    ports: 2,
    environment: ([broker, web]) => ({
      PULSAR_PREFIX_brokerServicePort: String(broker),
      PULSAR_PREFIX_webServicePort: String(web),
      PULSAR_PREFIX_advertisedAddress: "127.0.0.1",
      PULSAR_PREFIX_brokerDeduplicationEnabled: "true",
      PULSAR_PREFIX_webSocketServiceEnabled: "true",
      PULSAR_MEM: "-Xmx768m -XX:MaxDirectMemorySize=512m"
    }),
    command: ["sh", "-c", "bin/apply-config-from-env.py conf/standalone.conf && exec bin/pulsar standalone -nfw -nss"],
    endpoints: ([broker, web]) => ({
      MILLRACE_PULSAR_URL: `pulsar://127.0.0.1:${broker}`,
      MILLRACE_PULSAR_ADMIN_URL: `http://127.0.0.1:${web}`
    }),
    ready: /messaging service is ready/
  }
}

/** Starts a service in a container; resolves when it answers. */
export const container = async (name: Name): Promise<Local> => {
  const { GenericContainer, getContainerRuntimeClient, Wait } = await import("testcontainers")
  const { command, endpoints, environment, image, ports: count, ready } = images[name]
  const ports = await freePorts(count)
  const started = await new GenericContainer(image)
    .withExposedPorts(...ports.map((port) => ({ container: port, host: port })))
    .withEnvironment(environment(ports))
    .withCommand([...command])
    .withWaitStrategy(Wait.forLogMessage(ready))
    .withStartupTimeout(180_000)
    .start()
  const client = await getContainerRuntimeClient()
  const handle = client.container.getById(started.getId())
  let running = true
  const down = (how: () => Promise<unknown>) => async () => {
    if (running) await how()
    running = false
  }
  return {
    name,
    from: "docker",
    endpoints: endpoints(ports),
    pid: () => undefined,
    kill: down(() => handle.kill()),
    stop: down(() => handle.stop()),
    start: async () => {
      if (running) return
      await handle.start()
      running = true
      const deadline = Date.now() + 60_000
      for (const port of ports) {
        while (!(await listening(port))) {
          if (Date.now() > deadline) {
            throw new StackError({
              reason: "Start",
              message: `the container of ${name} did not answer within 60 s after its restart. try: docker logs`
            })
          }
          await sleep(100)
        }
      }
    },
    close: async () => {
      await started.stop()
    }
  }
}
