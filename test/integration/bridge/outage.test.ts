// A bridge whose brokers are unavailable before it starts, or while it runs: it waits, reports that, and continues by itself; --once and --dry-run fail.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import { kafka, pulsar, type Service } from "../../../stack/testing.ts"
import {
  type BothSides,
  openBothSides,
  declare,
  eventually,
  full,
  messagesOf,
  sideOptionsOf,
  publish,
  recordOf,
  unique
} from "../../support/bridge.ts"
import { type BridgeProcess, bridgeProcess, environmentOf, rulesFile } from "../../support/bridge-process.ts"
import { run } from "../../support/cli.ts"
import { transports } from "../../support/pulsar.ts"
import { recordsOf } from "../../support/relay-kafka.ts"
import { owning } from "../../support/stack.ts"

const suite = await owning("kafka", "pulsar", "native")

/** A bridge that mirrors a topic both ways by one of the transports. */
interface Mirror {
  readonly sides: BothSides
  readonly topic: string
  readonly file: string
  readonly process: BridgeProcess
}
const probed = ({ process }: Mirror, path: string) =>
  Effect.promise(async () => {
    const response = await fetch(`${process.url()}/${path}`)
    return { status: response.status, text: await response.text() }
  })
const ready = (mirror: Mirror) => Effect.map(probed(mirror, "readyz"), ({ status }) => status === 200)
/** Whether /readyz and the log report a side as unavailable. */
const misses = (mirror: Mirror, side: "kafka" | "pulsar") =>
  Effect.map(probed(mirror, "readyz"), ({ status, text }) => {
    const name = side === "kafka" ? "Kafka" : "Pulsar"
    return (
      status === 503 && text.includes(`"side":"${side}"`) && mirror.process.said().includes(`${name} is unavailable`)
    )
  })
/** Writes on both sides, and waits until the other side has it. */
const moves = Effect.fnUntraced(function* ({ sides, process, topic }: Mirror, text: string) {
  yield* sides.log.append(topic, [recordOf("k", `${text} out`)])
  // a broker that has just started may not answer yet
  const published = publish(sides, full(topic), [{ key: "k", value: `${text} back` }])
  yield* eventually(Effect.map(Effect.exit(published), Exit.isSuccess))
  const has = (found: ReadonlyArray<{ readonly value: string | null }>, wanted: string) =>
    found.some(({ value }) => value === wanted)
  yield* eventually(
    Effect.map(messagesOf(sides, full(topic)), (found) => has(found, `${text} out`)),
    process.said
  )
  yield* eventually(
    Effect.map(recordsOf(sides.kafkaOptions, sides.log, topic), (found) => has(found, `${text} back`)),
    process.said
  )
})
const started = Effect.fnUntraced(function* (sides: BothSides, topic: string) {
  const [from, to] = [`kafka:${topic}`, `pulsar:${full(topic)}`]
  const rules = [
    { name: "out", from, to },
    { name: "back", from: to, to: from }
  ]
  const file = yield* rulesFile({ name: unique("bridge"), rules })
  const process = yield* bridgeProcess(sides.options, file)
  yield* eventually(Effect.sync(() => process.url() !== undefined || !process.isAlive()))
  assert.isTrue(process.isAlive(), process.said())
  return { sides, topic, file, process } satisfies Mirror
})
/** Runs the flags that do not wait for a side that is unavailable. */
const failsOnce = Effect.fnUntraced(function* ({ sides, file }: Mirror, message: RegExp) {
  for (const flag of ["--once", "--dry-run"]) {
    const { code, errors } = yield* run(environmentOf(sides.options), "bridge", "--rules", file, flag)
    assert.strictEqual(code, 1, errors)
    assert.match(errors, message)
  }
})

const outage = Effect.fnUntraced(function* (kafka: Service, pulsar: Service) {
  const mirrors: Array<Mirror> = []
  const all = <E>(check: (mirror: Mirror) => Effect.Effect<unknown, E>) =>
    Effect.forEach(mirrors, check, { concurrency: 2, discard: true })
  const options = transports.map((transport) => sideOptionsOf({ ...kafka.endpoints, ...pulsar.endpoints }, transport))
  const opened = yield* Effect.forEach(options, openBothSides)
  const topic = unique("outage")
  for (const [i, one] of opened.entries()) yield* declare(one.log, `${topic}-${i}`, 1)

  yield* kafka.kill
  for (const [i, one] of opened.entries()) mirrors.push(yield* started(one, `${topic}-${i}`))
  yield* all((mirror) => eventually(misses(mirror, "kafka"), mirror.process.said))
  assert.strictEqual((yield* probed(mirrors[0]!, "healthz")).status, 200)
  yield* failsOnce(mirrors[0]!, /no broker answers at 127\.0\.0\.1:\d+: start it/)
  yield* kafka.start
  yield* all((mirror) => eventually(ready(mirror), mirror.process.said))
  yield* all((mirror) => moves(mirror, "begun"))

  for (const service of [kafka, pulsar]) {
    yield* service.kill
    yield* all((mirror) => eventually(misses(mirror, service.name as "kafka" | "pulsar"), mirror.process.said))
    if (service === pulsar) yield* failsOnce(mirrors[0]!, /pulsar: .*Pulsar does not answer: start it/)
    yield* service.start
    yield* all((mirror) => moves(mirror, `after ${service.name}`))
    yield* all((mirror) => eventually(ready(mirror), mirror.process.said))
  }
  for (const { process } of mirrors) {
    process.signal("SIGTERM")
    assert.strictEqual(yield* Effect.promise(() => process.ended), 0, process.said())
  }
})

suite("a bridge whose brokers are unavailable", () => {
  it.live(
    "waits, reports that to probes and in the log, and continues by itself, on both transports; --once and --dry-run fail",
    () =>
      Effect.gen(function* () {
        const [one, other] = yield* Effect.all([kafka(), pulsar()], { concurrency: 2 })
        yield* outage(one, other)
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Fatal")) as Effect.Effect<void>,
    480_000
  )
})
