// The fan-out on Pulsar while connections are cut and the broker is killed, on both transports: no message is lost, delivered twice or out of order.
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, it as vitest } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { freePorts } from "../../../stack/ports.ts"
import { pulsar, type Service } from "../../../stack/testing.ts"
import type { Consumer, FanOutError, Message } from "../../../src/subscription/fanout.ts"
import { Admin } from "../../../src/pulsar/client/admin.ts"
import { type Cluster, connect } from "../../../src/pulsar/client/cluster.ts"
import { failureOf } from "../../../src/pulsar/client/errors.ts"
import { fromCluster } from "../../../src/pulsar/subscription/fanout.ts"
import type { MessageId } from "../../../src/pulsar/client/message-id.ts"
import type { PulsarOptions } from "../../../src/pulsar/client/options.ts"
import { topicName } from "../../../src/pulsar/client/topic-names.ts"
import type { TransportReader } from "../../../src/pulsar/client/transport.ts"
import { readToEnd } from "../../../src/pulsar/client/read-to-end.ts"
import { ascending, options, receiveAll, seqs, upTo } from "../../contract/fanout-support.ts"
import { proxy } from "../../support/proxy.ts"
import {
  makeNamespace,
  type NumberedMessage,
  openProducer,
  optionsOf,
  sendAll,
  type TransportName,
  transports
} from "../../support/pulsar.ts"
import { isLong } from "../../support/size.ts"
import { owning, overTransports, testOver } from "../../support/stack.ts"

/** A broker that advertises the address of a proxy to its clients, and whose web interface is behind another proxy. */
class Broker extends Context.Service<
  Broker,
  {
    readonly service: Service
    /** Creates a topic whose name begins like this. */
    readonly topicFor: (name: string) => Effect.Effect<string>
    readonly optionsOf: (transport: TransportName) => PulsarOptions
    /** Cuts every connection, and returns how many there were. */
    readonly cut: () => Promise<number>
  }
>()("test/Broker") {}
const layer = Layer.effect(
  Broker,
  Effect.gen(function* () {
    const [binary, web] = [yield* proxy, yield* proxy]
    const [port = 0] = yield* Effect.promise(() => freePorts(1))
    binary.to(port)
    const listeners = `internal:pulsar://127.0.0.1:${binary.port}`
    const properties = {
      brokerServicePort: String(port),
      advertisedListeners: listeners,
      internalListenerName: "internal"
    }
    const service = yield* pulsar({ properties })
    const direct = { ...optionsOf("websocket", service.endpoints), timeoutMs: 60_000 }
    web.to(Number(new URL(direct.adminUrl!).port))
    yield* Effect.promise(() => makeNamespace(direct))
    const admin = new Admin(direct)
    let created = 0
    // each attempt at a test has a topic of its own
    const topicFor = (name: string) =>
      Effect.promise(async () => {
        const topic = `${name}-${++created}`
        await admin.create(topicName(direct, topic))
        return topic
      })
    const given = (transport: TransportName): PulsarOptions => ({
      ...optionsOf(transport, service.endpoints),
      url: transport === "native" ? `pulsar://127.0.0.1:${binary.port}` : `ws://127.0.0.1:${web.port}`,
      adminUrl: direct.adminUrl!
    })
    return { service, topicFor, optionsOf: given, cut: async () => (await binary.cut()) + (await web.cut()) }
  })
)

const types = ["exclusive", "failover", "shared", "keyShared"] as const
const total = isLong ? 240 : 120
const keys = 10
const numbered = (from: number, to: number): ReadonlyArray<NumberedMessage> =>
  upTo(to, from).map((seq) => ({
    key: `k${seq % keys}`,
    value: String(seq),
    eventTime: 1_000 + seq,
    properties: { "millrace-seq": String(seq), "millrace-stream": "s" },
    sequenceId: seq
  }))
const retryable = { schedule: Schedule.spaced("50 millis"), while: (error: FanOutError) => error.retryable }

/** The number of the topic's last message; 0 if it has none. */
const lastIn = (cluster: Cluster, topic: string) =>
  Effect.tryPromise({
    try: async () => {
      let last = 0
      await readToEnd(cluster, topicName(cluster.options, topic), undefined, ({ value }) => (last = Number(value)))
      return last
    },
    catch: (cause) => failureOf(cause, topic)
  })
/** Publishes in portions and reports each. After a failure it continues after the last message that the topic has. Returns the number of failures. */
const publish = Effect.fnUntraced(function* (
  cluster: Cluster,
  topic: string,
  reached: (seq: number) => Effect.Effect<void>
) {
  const state = { sent: 0, failures: 0 }
  const attempt = Effect.gen(function* () {
    const from = state.sent
    // from here on no other connection can write under this name
    const producer = yield* openProducer(cluster, topic, { initialSequenceId: from, patienceMs: 60_000 })
    state.sent = yield* lastIn(cluster, topic)
    // an interface that numbers messages itself continues from the initial sequence id
    if (state.sent !== from) return
    while (state.sent < total) {
      const to = (Math.floor(state.sent / 10) + 1) * 10
      yield* sendAll(producer, numbered(state.sent + 1, to))
      state.sent = to
      yield* reached(state.sent)
    }
  }).pipe(Effect.scoped)
  const again = Effect.catchTag(attempt, "PulsarFailure", (error) => {
    state.failures++
    assert.isTrue(error.retryable || error.kind === "busy", error.message)
    return Effect.sleep(20)
  })
  yield* Effect.repeat(again, { while: () => state.sent < total })
  return state.failures
})
/** Receives and acknowledges messages one after the other, until all were handled. Returns those, and any that come after them. */
const consume = Effect.fnUntraced(function* (consumer: Consumer) {
  const handled: Array<Message> = []
  while (handled.length < total)
    for (const message of yield* Effect.retry(consumer.receive(20), retryable)) {
      handled.push(message)
      yield* Effect.retry(consumer.acknowledge([message]), retryable)
    }
  return [...handled, ...(yield* receiveAll(consumer, 1, 1_000))]
})
const next = (reader: TransportReader | undefined) => reader?.next(200) ?? Promise.reject(new Error("there is none"))
/** Reads all messages. If a reader ends, it opens another one after the last message. */
const readOn = async (cluster: Cluster, topic: string, stop: () => boolean) => {
  const read: Array<number> = []
  let from: MessageId | "earliest" = "earliest"
  while (read.length < total && !stop()) {
    const reader: TransportReader | undefined = await cluster.transport.read({ topic, from }).catch(() => undefined)
    try {
      while (read.length < total && !stop()) {
        const message = await next(reader)
        if (message === undefined) continue
        read.push(Number(message.value))
        from = message.id
      }
    } catch {
      // the next one goes on
    }
    await reader?.close()
  }
  return read
}

/**
 * The path of a package that is the native client, but for the time of what it receives: the process gets each answer up to a quarter of a second
 * later, as in a process that has much to do. Some of a lost connection arrive so while there is none, and some when there is one again.
 */
const late = (client: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const folder = await mkdtemp(join(tmpdir(), "millrace-late-"))
      await writeFile(
        join(folder, "index.js"),
        `const { setTimeout: sleep } = require("node:timers/promises")
const real = require(${JSON.stringify(createRequire(import.meta.url).resolve(client))})
class Client extends real.Client {
  async subscribe(options) {
    const consumer = await super.subscribe(options)
    const later = (receive) => async () => {
      const answer = await receive()
      await sleep(Math.random() * 250)
      return answer
    }
    return {
      receive: later(() => consumer.receive()),
      batchReceive: later(() => consumer.batchReceive()),
      acknowledgeId: (id) => consumer.acknowledgeId(id),
      negativeAcknowledgeId: (id) => consumer.negativeAcknowledgeId(id),
      isConnected: () => consumer.isConnected(),
      close: () => consumer.close()
    }
  }
}
module.exports = { ...real, Client }
`
      )
      return folder
    }),
    (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
  )

const suite = await owning("pulsar")
suite("the fan-out on Pulsar, under faults", () => {
  vitest.layer(layer, { timeout: "180 seconds", excludeTestServices: true })((it) => {
    overTransports((transport) => {
      it.effect(
        "no message is lost, delivered twice or reordered when connections are cut and the broker is killed",
        () =>
          Effect.gen(function* () {
            const { cut, optionsOf, service, topicFor } = yield* Broker
            const cluster = yield* connect(optionsOf(transport))
            const topic = yield* topicFor(`cut-${transport}`)
            const full = topicName(cluster.options, topic)
            const fanOut = fromCluster(cluster)
            const subscribe = (name: string, type: (typeof types)[number]) =>
              fanOut.subscribe(options(topic, type, { name, receiveQueue: 50, ackTimeoutMs: 600_000 }))
            const consuming = yield* Effect.forEach(types, (type) =>
              Effect.flatMap(subscribe(type, type), (consumer) => Effect.forkChild(consume(consumer)))
            )
            let over = false
            const reading = readOn(cluster, full, () => over)
            yield* Effect.addFinalizer(() => Effect.sync(() => (over = true)))

            const cuts: Array<Promise<number>> = []
            let killed = false
            const faultAt = Effect.fnUntraced(function* (seq: number) {
              if (seq > total / 2 && !killed) {
                killed = true
                return yield* Effect.andThen(service.kill, service.start)
              }
              // while the next portion is under way
              if (seq % 40 === 0) setTimeout(() => cuts.push(cut()), seq % 3)
            }, Effect.orDie)
            const failures = yield* publish(cluster, topic, faultAt)
            const counts = yield* Effect.promise(() => Promise.all(cuts))
            assert.isAbove(Math.max(...counts), 0)
            // the native client sends again by itself
            if (transport === "websocket") assert.isAbove(failures, 0)
            for (const [i, fiber] of consuming.entries()) {
              const handled = yield* Fiber.join(fiber)
              const places = Map.groupBy(handled, ({ position }) => position)
              const again = handled.filter(({ position }) => places.get(position)!.length > 1)
              assert.deepStrictEqual(seqs(again), [], `${types[i]}: delivered again`)
              assert.deepStrictEqual(ascending(seqs(handled)), upTo(total), types[i])
              for (const [key, some] of Map.groupBy(types[i] === "shared" ? [] : handled, (one) => one.key))
                assert.deepStrictEqual(seqs(some), ascending(seqs(some)), `${types[i]} ${key}`)
            }
            assert.deepStrictEqual(yield* Effect.promise(() => reading), upTo(total))
          }).pipe(Effect.scoped),
        180_000
      )
    })

    testOver("native", it.effect)(
      "what a process gets late of a lost connection does not overtake what it left to the next one",
      () =>
        Effect.gen(function* () {
          const { cut, optionsOf, topicFor } = yield* Broker
          const given = optionsOf("native")
          const cluster = yield* connect({ ...given, client: yield* late(given.client ?? "pulsar-client") })
          const topic = yield* topicFor("late")
          yield* sendAll(yield* openProducer(cluster, topic, { initialSequenceId: 0 }), numbered(1, total))
          const fanOut = fromCluster(cluster)
          const consuming = yield* Effect.forEach(["exclusive", "keyShared"] as const, (type) =>
            fanOut
              .subscribe(options(topic, type, { name: type, receiveQueue: 10, ackTimeoutMs: 600_000 }))
              .pipe(Effect.flatMap((consumer) => Effect.forkChild(consume(consumer))))
          )
          const cutting = yield* Effect.forkChild(
            Effect.repeat(Effect.andThen(Effect.sleep(400), Effect.promise(cut)), { times: isLong ? 14 : 7 })
          )
          for (const [i, fiber] of consuming.entries()) {
            const handled = yield* Fiber.join(fiber)
            assert.deepStrictEqual(ascending(seqs(handled)), upTo(total))
            for (const [key, some] of Map.groupBy(handled, (one) => one.key))
              assert.deepStrictEqual(seqs(some), ascending(seqs(some)), `${["exclusive", "keyShared"][i]} ${key}`)
          }
          yield* Fiber.join(cutting)
        }).pipe(Effect.scoped),
      120_000
    )

    testOver("native", it.effect)(
      "messages that consumers held when the broker was killed are delivered to other consumers",
      () =>
        Effect.gen(function* () {
          const { optionsOf, service, topicFor } = yield* Broker
          const all = transports.flatMap((transport) => types.map((type) => ({ transport, type })))
          const clusters = {
            native: yield* connect(optionsOf("native")),
            websocket: yield* connect(optionsOf("websocket"))
          }
          const topic = yield* topicFor("held")
          const producer = yield* openProducer(clusters.native, topic, { initialSequenceId: 0 })
          yield* sendAll(producer, numbered(1, 40))
          const subscribe = ({ transport, type }: (typeof all)[number]) =>
            fromCluster(clusters[transport]).subscribe(options(topic, type, { name: `${transport}-${type}` }))
          const down = Latch.makeUnsafe(false)
          const held = all.map(() => Latch.makeUnsafe(false))
          const holding = yield* Effect.forEach(all, (one, i) =>
            Effect.forkChild(
              Effect.scoped(
                Effect.gen(function* () {
                  const consumer = yield* subscribe(one)
                  const messages = yield* receiveAll(consumer, 40, 60_000)
                  assert.strictEqual(messages.length, 40)
                  yield* consumer.acknowledge(messages.filter(({ seq }) => seq! % 2 === 0))
                  yield* held[i]!.open
                  yield* down.await
                })
              )
            )
          )
          yield* Effect.forEach(held, (one) => one.await)
          yield* service.kill
          yield* service.start
          yield* down.open
          yield* Effect.forEach(holding, Fiber.join)
          yield* Effect.forEach(
            all,
            Effect.fnUntraced(function* (one) {
              const consumer = yield* Effect.retry(subscribe(one), {
                schedule: Schedule.spaced("100 millis"),
                times: 100
              })
              // messages whose acknowledgement the broker had not stored yet may come as well
              const missing = new Set(upTo(40).filter((seq) => seq % 2 === 1))
              while (missing.size > 0) {
                const messages = yield* consumer.receive(40)
                for (const { seq } of messages) missing.delete(seq!)
                yield* consumer.acknowledge(messages)
              }
            }, Effect.scoped),
            { concurrency: "unbounded" }
          )
        }).pipe(Effect.scoped),
      120_000
    )

    testOver("native", it.effect)(
      "a native consumer that fetches nothing ahead gets the messages that arrived before its object existed",
      () =>
        Effect.gen(function* () {
          const { optionsOf, topicFor } = yield* Broker
          const cluster = yield* connect(optionsOf("native"))
          const topic = yield* topicFor("ahead")
          const producer = yield* openProducer(cluster, topic, { initialSequenceId: 0 })
          yield* sendAll(producer, numbered(1, 5))
          for (let i = 0; i < 5; i++) {
            const received: Array<unknown> = []
            const consuming = cluster.transport.consume({
              topic: topicName(cluster.options, topic),
              subscription: `s${i}`,
              name: "c",
              type: "shared",
              earliest: true,
              prefetch: 0,
              arrived: ({ value }) => received.push(value),
              lost: () => undefined,
              recovered: () => undefined
            })
            // the client's own threads go on while this one does not
            for (const until = performance.now() + 200; performance.now() < until;);
            const consumer = yield* Effect.promise(() => consuming)
            consumer.ask(5)
            yield* Effect.repeat(Effect.sleep(10), { while: () => received.length < 5, times: 1_000 })
            assert.deepStrictEqual(received, ["1", "2", "3", "4", "5"])
            yield* Effect.promise(() => consumer.close())
          }
        }).pipe(Effect.scoped)
    )
  })
})
