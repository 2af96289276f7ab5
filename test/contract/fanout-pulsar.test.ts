// Runs the contract of the fan-out on a real Pulsar: with the native client and over WebSocket.
import { needing, overTransports } from "../support/stack.ts"
import { fanOutOnPulsar } from "../support/pulsar.ts"
import { fanOutContract } from "./fanout.ts"

const suite = await needing("pulsar")

suite("pulsar", () => {
  overTransports((transport) => fanOutContract(`Pulsar, ${transport}`, fanOutOnPulsar(transport)))
})
