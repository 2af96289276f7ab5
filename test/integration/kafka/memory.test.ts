// The memory of readers of Kafka: bounded for the process, however many partitions it reads, and every reader goes on.
import { randomBytes } from "node:crypto"
import { Socket } from "node:net"
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { shared } from "../../../stack/testing.ts"
import { Client } from "../../../src/kafka/protocol/client.ts"
import { register } from "../../../src/kafka/protocol/compression.ts"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import type { Compression } from "../../../src/kafka/protocol/options.ts"
import { open } from "../../../src/kafka/log/read.ts"
import { ReadBudget } from "../../../src/kafka/log/read-budget.ts"
import { Log } from "../../../src/log/log.ts"
import { fresh, range, record } from "../../contract/log-support.ts"
import { needing } from "../../support/stack.ts"

const partitions = 60
const batches = 24
const batchBytes = 64 << 10
const fetchBytes = 8 << 20
/** Brokers send whole batches, so each reader may hold one more than its share. */
const bound = fetchBytes + partitions * batchBytes * 1.1

const brokers = Effect.map(shared("kafka"), (endpoints) => endpoints.MILLRACE_KAFKA_BROKERS!.split(","))
/** How many bytes this process has read from the brokers so far, over sockets that are still open. */
const received = (ports: ReadonlyArray<number>) => {
  const handles = (process as unknown as Record<string, (() => ReadonlyArray<unknown>) | undefined>)[
    "_getActiveHandles"
  ]
  return (handles?.call(process) ?? [])
    .filter((handle): handle is Socket => handle instanceof Socket && ports.includes(handle.remotePort ?? 0))
    .reduce((sum, { bytesRead }) => sum + bytesRead, 0)
}
const canCount = "_getActiveHandles" in process && !("Deno" in globalThis)

/** 8,000 characters that compress to a tenth. */
const value = () => JSON.stringify(randomBytes(800).toString("hex").repeat(5))

/** A topic with so many batches of 64 KiB in each partition; compressed, each takes a tenth of that. */
const filled = Effect.fnUntraced(function* (compression: Compression) {
  const list = yield* brokers
  const log = yield* KafkaLog.make({ brokers: list, compression })
  const topic = yield* fresh(partitions).pipe(Effect.provideService(Log, log))
  for (const batch of range(0, batches)) {
    const records = range(0, partitions).flatMap((partition) =>
      range(0, 8).map((i) => record({ partition, value: value(), key: `${batch}-${i}` }))
    )
    yield* log.append(topic, records)
  }
  return { list, topic }
})

const test = Effect.fnUntraced(function* (compression: Compression) {
  register()
  const { list, topic } = yield* filled(compression)
  const ports = list.map((broker) => Number(broker.split(":")[1]))
  const before = received(ports)
  const client = new Client({ brokers: list })
  const budget = new ReadBudget(fetchBytes)
  yield* Effect.addFinalizer(() => Effect.sync(() => client.close()))
  yield* Effect.promise(() => client.hello())
  const readers = yield* Effect.forEach(
    range(0, partitions),
    (partition) => open(client, budget, { topic, partition, maxBytes: () => 1 << 20 }, 0),
    { concurrency: "unbounded" }
  )
  // each reader has taken one batch, and does not ask for the next
  const first = yield* Effect.forEach(readers, ({ take }) => take, { concurrency: "unbounded" })
  let held = -1
  while (held !== received(ports)) {
    held = received(ports)
    yield* Effect.sleep(500)
  }
  if (canCount) assert.isAbove(held - before, 1_000)
  assert.isBelow(held - before, bound)
  assert.isBelow(budget.peak, bound)

  // then all go on: every reader gets everything, within the bound
  const counts = yield* Effect.forEach(
    readers,
    Effect.fnUntraced(function* ({ take }, partition) {
      let count = first[partition]!.records.length
      while (count < batches * 8) count += (yield* take).records.length
      return count
    }),
    { concurrency: "unbounded" }
  )
  assert.deepStrictEqual(
    counts,
    range(0, partitions).map(() => batches * 8)
  )
  assert.isBelow(budget.peak, bound)
}, Effect.scoped)

const suite = await needing("kafka")
suite("on Kafka", () => {
  vitest.layer(Layer.empty, { timeout: "120 seconds", excludeTestServices: true })("Memory of readers", (it) => {
    it.effect("is bounded while 60 partitions wait for their batches to be handled", () => test("none"))
    it.effect("counts compressed records by their size after decompression", () => test("zstd"))
  })
})
