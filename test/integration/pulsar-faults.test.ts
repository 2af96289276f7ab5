// The fan-out on Pulsar while connections are cut, the broker is killed, and processes die: nothing is lost, what was acknowledged is done with.
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import { freePorts } from "../../stack/ports.ts"
import { pulsar, shared } from "../../stack/testing.ts"
import { FanOut, type Message, type SubscriptionType } from "../../src/fanout.ts"
import * as PulsarFanOut from "../../src/pulsar/fanout.ts"
import type { Options } from "../../src/pulsar/options.ts"
import { ascending, options, receiveAll, sent, seqs, Topics, topicWith, upTo } from "../contract/fanout-support.ts"
import { proxy } from "../support/proxy.ts"
import { fanOutOnPulsar, makeNamespace, optionsOf, topicsOn, transports } from "../support/pulsar.ts"
import { needing, owning } from "../support/stack.ts"

/** A broker that clients reach by proxies only, whatever it tells them of itself. */
const cutBroker = Effect.gen(function* () {
  const [broker, web] = [yield* proxy, yield* proxy]
  const [inner = 0, outer = 0] = yield* Effect.promise(() => freePorts(2))
  broker.to(outer)
  const service = yield* pulsar({
    properties: {
      brokerServicePort: String(inner),
      internalListenerName: "internal",
      advertisedListeners: `internal:pulsar://127.0.0.1:${inner},outer:pulsar://127.0.0.1:${broker.port}`,
      bindAddresses: `outer:pulsar://127.0.0.1:${outer}`
    }
  })
  const admin = service.endpoints.MILLRACE_PULSAR_ADMIN_URL ?? ""
  web.to(Number(new URL(admin).port))
  const byProxy = {
    native: { ...optionsOf("native", service.endpoints), url: `pulsar://127.0.0.1:${broker.port}` },
    websocket: { ...optionsOf("websocket", service.endpoints), url: `ws://127.0.0.1:${web.port}` }
  }
  return { service, byProxy, cut: () => broker.cut() + web.cut(), direct: optionsOf("websocket", service.endpoints) }
})

const types = ["exclusive", "failover", "shared", "keyShared"] as const

/** Takes and acknowledges one after the other, until all are done with. */
const consume = Effect.fnUntraced(function* (from: Options, topic: string, type: SubscriptionType, total: number) {
  const fanOut = yield* PulsarFanOut.make(from)
  const name = `${type}-${from.url.startsWith("ws") ? "ws" : "native"}`
  const consumer = yield* fanOut.subscribe(options(topic, type, { name, receiveQueue: 50 }))
  const again = Schedule.spaced("50 millis")
  const handled: Array<Message> = []
  while (handled.length < total) {
    const messages = yield* Effect.retry(consumer.receive(20), again)
    for (const message of messages) {
      handled.push(message)
      yield* Effect.retry(consumer.acknowledge([message]), again)
    }
  }
  return { name, handled, more: yield* receiveAll(consumer, 1, 1_500) }
}, Effect.scoped)

const suite = await owning("pulsar")
suite("the fan-out on pulsar, under faults", () => {
  it.live(
    "connections that are cut and a broker that is killed lose nothing, and bring nothing again that was acknowledged",
    () =>
      Effect.gen(function* () {
        const { byProxy, cut, direct, service } = yield* cutBroker
        yield* Effect.promise(() => makeNamespace(direct))
        const topics = yield* topicsOn(direct, false)
        const topic = "cut"
        yield* topics.declare(topic, 2)
        const total = 400
        const publish = (from: number, to: number) => topics.publish(topic, sent(to, from, 10, 2))
        const consuming = yield* Effect.forkChild(
          Effect.all(
            transports.flatMap((transport) => types.map((type) => consume(byProxy[transport], topic, type, total))),
            { concurrency: "unbounded" }
          )
        )
        let cuts = 0
        for (let i = 0; i < 6; i++) {
          yield* publish(i * 50 + 1, i * 50 + 50)
          yield* Effect.sleep(400)
          cuts += cut()
        }
        assert.isAbove(cuts, 6)
        yield* publish(301, 350)
        yield* service.kill
        yield* service.start
        yield* publish(351, total)
        for (const { handled, more, name } of yield* Fiber.join(consuming)) {
          assert.deepStrictEqual(ascending(seqs(handled)), upTo(total), name)
          assert.deepStrictEqual(seqs(more), [], name)
          const byKey = Map.groupBy(handled, ({ key }) => key)
          if (name.startsWith("keyShared"))
            for (const [key, some] of byKey) assert.deepStrictEqual(seqs(some), ascending(seqs(some)), `${name} ${key}`)
        }
      }).pipe(Effect.scoped),
    300_000
  )
})

const child = (from: Options, topic: string, type: SubscriptionType) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const file = fileURLToPath(new URL("../support/pulsar-child.ts", import.meta.url))
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
others("a killed consumer on pulsar", () => {
  describe.each(transports)("%s", (transport) => {
    it.live.each(types)(
      "lets its subscription and its messages go: %s",
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
