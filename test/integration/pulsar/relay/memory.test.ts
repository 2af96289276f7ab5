// What a channel of the relay to Pulsar keeps in memory after all is sent: there are hundreds of channels, one for each stream and topic.
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { shared } from "../../../../stack/testing.ts"
import { connect } from "../../../../src/pulsar/client/cluster.ts"
import { Channel } from "../../../../src/pulsar/relay/channel.ts"
import type { RelayMessage } from "../../../../src/pulsar/relay/messages.ts"
import { optionsOf } from "../../../support/pulsar.ts"
import { channelMessage, makeTenant } from "../../../support/relay-pulsar.ts"
import { needing, testOverTransports } from "../../../support/stack.ts"

const count = 3_000
setFlagsFromString("--expose-gc")
const collectGarbage = runInNewContext("gc") as () => void

/** Sends messages over a new channel until all have arrived. Returns weak references to them. */
const send = Effect.fnUntraced(function* (channel: (done: () => void) => Channel) {
  let left = count
  let finished = () => {}
  const one = channel(() => {
    left -= 1
    if (left === 0) finished()
  })
  yield* Effect.addFinalizer(() => Effect.promise(() => one.close()))
  const messages: Array<WeakRef<RelayMessage>> = []
  yield* Effect.callback<void>((resume) => {
    finished = () => resume(Effect.void)
    for (let seq = 1; seq <= count; seq++) {
      const whole = channelMessage(one.topic, seq)
      messages.push(new WeakRef(whole))
      one.push([whole])
    }
  })
  return { one, messages }
})

const suite = await needing("pulsar")
suite("a channel of the relay to Pulsar", () => {
  testOverTransports(
    "keeps no message in memory after it was sent: %s",
    (transport) =>
      Effect.gen(function* () {
        const cluster = yield* connect(optionsOf(transport, yield* shared("pulsar")))
        const name = `memory${process.pid}-${transport}`
        yield* Effect.promise(() => makeTenant(cluster, name))
        const topic = `persistent://${name}/alerts/alerts`
        const { messages, one } = yield* send(
          (done) =>
            new Channel(
              {
                cluster,
                stream: "s",
                name,
                from: 0,
                batching: false,
                recordedPosition: (initial) => Promise.resolve(initial),
                inTurn: (run) => run(),
                holds: () => true,
                failed: () => {},
                done,
                halt: assert.fail
              },
              topic
            )
        )
        let held = count
        // promises and the client release messages a moment later
        for (let i = 0; i < 50 && held > 50; i++) {
          yield* Effect.sleep(20)
          collectGarbage()
          held = messages.filter((message) => message.deref() !== undefined).length
        }
        assert.isAtMost(held, 50)
        assert.strictEqual(one.takePosition()?.seq, count)
      }).pipe(Effect.scoped),
    60_000
  )
})
