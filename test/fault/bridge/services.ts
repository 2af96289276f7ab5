// A run's own Kafka and Pulsar, to be killed; clients reach Pulsar through proxies whose connections can be cut.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { freePorts } from "../../../stack/ports.ts"
import * as Stack from "../../../stack/testing.ts"
import { type Places, placesOf } from "../../support/bridge.ts"
import type { TransportName } from "../../support/pulsar.ts"
import { TcpProxy } from "../../support/tcp-proxy.ts"

export interface Services {
  readonly kafka: Stack.Service
  readonly pulsar: Stack.Service
  /** How both are reached through the proxies. */
  readonly through: (transport: TransportName) => Places
  /** Past the proxies. */
  readonly direct: Places
  /** Cuts every connection to Pulsar, and tells how many there were. */
  readonly cut: () => number
}

const tcpProxy = Effect.acquireRelease(
  Effect.promise(async () => {
    const made = new TcpProxy()
    await made.open()
    return made
  }),
  (made) => Effect.promise(() => made.close())
)

/** Starts both. */
export const services: Effect.Effect<Services, Stack.StackError, Scope.Scope> = Effect.gen(function* () {
  const [broker, web] = [yield* tcpProxy, yield* tcpProxy]
  const [inner = 0, outer = 0] = yield* Effect.promise(() => freePorts(2))
  broker.target = outer
  const properties = {
    brokerServicePort: String(inner),
    internalListenerName: "internal",
    advertisedListeners: `internal:pulsar://127.0.0.1:${inner},outer:pulsar://127.0.0.1:${broker.port}`,
    bindAddresses: `outer:pulsar://127.0.0.1:${outer}`,
    // the connection of a process that stands still is let go soon; the interface's own pings would hold it for ever
    webSocketPingDurationSeconds: "-1",
    webSocketSessionIdleTimeoutMillis: "15000",
    keepAliveIntervalSeconds: "3"
  }
  const [kafka, pulsar] = yield* Effect.all([Stack.kafka(), Stack.pulsar({ properties })], { concurrency: 2 })
  const inside = new URL(pulsar.endpoints.MILLRACE_PULSAR_ADMIN_URL!)
  web.target = Number(inside.port)
  const endpoints = {
    ...kafka.endpoints,
    MILLRACE_PULSAR_URL: `pulsar://127.0.0.1:${broker.port}`,
    MILLRACE_PULSAR_ADMIN_URL: `http://127.0.0.1:${web.port}`
  }
  const direct = {
    ...endpoints,
    MILLRACE_PULSAR_URL: `pulsar://127.0.0.1:${inner}`,
    MILLRACE_PULSAR_ADMIN_URL: inside.origin
  }
  return {
    kafka,
    pulsar,
    through: (transport) => placesOf(endpoints, transport),
    direct: placesOf(direct),
    cut: () => broker.cut() + web.cut()
  }
})
