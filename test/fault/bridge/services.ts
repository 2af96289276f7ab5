// Starts a Kafka and a Pulsar for one run, which can be killed. The bridge reaches Pulsar through proxies whose connections can be cut.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stack from "../../../stack/testing.ts"
import { type SideOptions, sideOptionsOf } from "../../support/bridge.ts"
import type { TransportName } from "../../support/pulsar.ts"
import { PulsarProxies } from "../harness/proxied-pulsar.ts"

/** A run's services. */
export interface Services {
  readonly kafka: Stack.Service
  readonly pulsar: Stack.Service
  /** How both are reached through the proxies. */
  readonly through: (transport: TransportName) => SideOptions
  /** How both are reached past the proxies. */
  readonly direct: SideOptions
  /** Cuts every connection to Pulsar, and returns how many there were. */
  readonly cut: () => number
}

/** Starts both. */
export const services: Effect.Effect<Services, Stack.StackError, Scope.Scope> = Effect.gen(function* () {
  const proxies = yield* Effect.acquireRelease(
    Effect.sync(() => new PulsarProxies()),
    (opened) => Effect.promise(() => opened.close())
  )
  const properties = {
    ...(yield* Effect.promise(() => proxies.open())),
    // the web interface's own pings would keep the connection of a stopped process open
    webSocketPingDurationSeconds: "-1",
    keepAliveIntervalSeconds: "3"
  }
  const [kafka, pulsar] = yield* Effect.all([Stack.kafka(), Stack.pulsar({ properties })], { concurrency: 2 })
  proxies.started(pulsar.endpoints)
  return {
    kafka,
    pulsar,
    through: (transport) => sideOptionsOf({ ...kafka.endpoints, ...proxies.through }, transport),
    direct: sideOptionsOf({ ...kafka.endpoints, ...proxies.direct }),
    cut: () => proxies.cut()
  }
})
