// The fan-out on Pulsar when a consuming process is killed: its subscription and its messages go to another consumer.
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { shared } from "../../../stack/testing.ts"
import { FanOut, type SubscriptionType } from "../../../src/subscription/fanout.ts"
import type { PulsarOptions } from "../../../src/pulsar/client/options.ts"
import { ascending, options, receiveAll, sent, seqs, Topics, topicWith, upTo } from "../../contract/fanout-support.ts"
import { fanOutOnPulsar, optionsOf } from "../../support/pulsar.ts"
import { needing, overTransports } from "../../support/stack.ts"

const types = ["exclusive", "failover", "shared", "keyShared"] as const

const child = (from: PulsarOptions, topic: string, type: SubscriptionType) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const file = fileURLToPath(new URL("../../support/pulsar-child.ts", import.meta.url))
      const flags = "Deno" in globalThis ? ["run", "-A"] : []
      const args = [...flags, file, JSON.stringify(from), topic, type]
      return spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] })
    }),
    (process) => Effect.sync(() => process.kill("SIGKILL"))
  )
const lines = (process: ReturnType<typeof spawn>, count: number) =>
  Effect.callback<ReadonlyArray<string>>((resume) => {
    let text = ""
    process.stdout!.on("data", (data: Buffer) => {
      text += data.toString()
      if (text.split("\n").length > count) resume(Effect.succeed(text.trim().split("\n")))
    })
  })

const others = await needing("pulsar")
others("a killed consumer on Pulsar", () => {
  overTransports((transport) => {
    it.live.each(types)(
      "leaves its subscription and its messages to the next consumer: %s",
      (type) =>
        Effect.gen(function* () {
          const from = optionsOf(transport, yield* shared("pulsar"))
          const [fanOut, topics] = [yield* FanOut, yield* Topics]
          const topic = yield* topicWith(2)
          yield* topics.publish(topic, sent(6, 1, 4, 2))
          const process = yield* child(from, topic, type)
          assert.strictEqual((yield* lines(process, 6)).length, 6)
          if (type === "exclusive") {
            const busy = yield* Effect.flip(Effect.scoped(fanOut.subscribe(options(topic, type))))
            assert.strictEqual(busy._tag, "ConsumerBusy")
          }
          process.kill("SIGKILL")
          const consumer = yield* fanOut
            .subscribe(options(topic, type))
            .pipe(Effect.retry({ times: 100, schedule: Schedule.spaced("100 millis") }))
          assert.deepStrictEqual(ascending(seqs(yield* receiveAll(consumer, 6, 10_000))), upTo(6))
        }).pipe(Effect.scoped, Effect.provide(fanOutOnPulsar(transport))),
      60_000
    )
  })
})
