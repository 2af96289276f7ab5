// What everything in a running bridge is given: its definition, both sides, and its status.
import * as Effect from "effect/Effect"
import { Availability } from "./availability.ts"
import type { Bridge } from "./definition.ts"
import type { BridgeError } from "./errors.ts"
import type { KafkaSide } from "./kafka-side.ts"
import type { PulsarSide } from "./pulsar-side.ts"
import { BridgeStatus } from "./status.ts"
import type { Log } from "../log/log.ts"

/** A bridge and the two sides that it connects. */
export interface BridgeContext {
  readonly bridge: Bridge
  /** Kafka's log. */
  readonly log: Log["Service"]
  readonly kafka: KafkaSide
  readonly pulsar: PulsarSide
  /** The names of the two clusters in the origin header: `kafka:CLUSTER_ID` and `pulsar:NAME`. */
  readonly clusters: { readonly kafka: string; readonly pulsar: string }
  readonly status: BridgeStatus
  readonly availability: Availability
}

/** Makes the context of a bridge. Fails if Kafka cannot be asked for its cluster id. */
export const makeContext = Effect.fnUntraced(function* (
  bridge: Bridge,
  sides: Pick<BridgeContext, "log" | "kafka" | "pulsar">
): Effect.fn.Return<BridgeContext, BridgeError> {
  const id = yield* sides.kafka.clusterId
  return {
    ...sides,
    bridge,
    clusters: { kafka: `kafka:${id}`, pulsar: `pulsar:${bridge.pulsar}` },
    status: new BridgeStatus(),
    availability: new Availability()
  }
})
