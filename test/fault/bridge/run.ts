// One run: two processes of a bridge that mirrors a topic both ways while both sides are written, faults one after another, and the comparison.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { mirrorOnce } from "../../../src/bridge/bridge.ts"
import type { BridgeOptions } from "../../../src/bridge/definition.ts"
import { type Both, both, forgetProducers, full, partitioned, progressOf, unique } from "../../support/bridge.ts"
import { type BridgeProcess, bridgeProcess, rulesFile } from "../../support/bridge-process.ts"
import type { TransportName } from "../../support/pulsar.ts"
import { randomOf } from "../../support/random.ts"
import { type Patch, patchedCopy } from "../harness/patched-copy.ts"
import { compare, type Differences } from "./compare.ts"
import { kafkaBytes, partitions, skipped, writing } from "./load.ts"
import type { Kind, Step } from "./plan.ts"
import { points } from "./points.ts"
import type { Services } from "./services.ts"

/** What a run is asked for. */
export interface RunOptions {
  readonly seed: number
  readonly steps: ReadonlyArray<Step>
  /** Taken away protections. Without a copy of the tree there are no points either. */
  readonly patches?: ReadonlyArray<Patch>
  readonly copied: boolean
  /** How long anything may take to come about. */
  readonly patienceMs?: number
  /** After so long no step is begun. */
  readonly maxMs?: number
  readonly say: (line: string) => void
}
/** What came of a run. */
export interface Report extends Differences {
  readonly seed: number
  /** Faults that were done. */
  readonly cycles: number
  /** The same by kind. */
  readonly done: Readonly<Partial<Record<Kind, number>>>
  readonly processes: number
  readonly seconds: number
  /** What did not come about. */
  readonly hang: string | undefined
}
/** What did not come about in time. */
class Hang extends Error {}
const usualMs = 120_000
/** So long a zombie may do harm before it is killed. */
const harmMs = 3_000
/** So long a point may take before the other process leaves all work to the one that is to come by. */
const aloneMs = 4_000

const patiently = Effect.fnUntraced(function* (
  what: string,
  condition: Effect.Effect<boolean, unknown>,
  ms: number
): Effect.fn.Return<void, Hang> {
  const until = (yield* Clock.currentTimeMillis) + ms
  while (true) {
    // brokers may be away, and what asks them dies of that
    const exit = yield* Effect.exit(condition)
    if (exit._tag === "Success" && exit.value) return
    if ((yield* Clock.currentTimeMillis) > until) return yield* Effect.fail(new Hang(what))
    yield* Effect.sleep(50)
  }
})

class Run {
  processes = 0
  paused = false
  readonly done: Partial<Record<Kind, number>> = {}
  readonly ends: Both
  readonly topic: string
  readonly options: BridgeOptions
  private readonly patienceMs: number
  private readonly services: Services
  private readonly file: string
  private readonly root: string | undefined
  private readonly say: (line: string) => void
  private running: ReadonlyArray<BridgeProcess> = []

  constructor(given: {
    ends: Both
    topic: string
    services: Services
    file: string
    root: string | undefined
    options: BridgeOptions
    patienceMs: number
    say: (line: string) => void
  }) {
    this.ends = given.ends
    this.topic = given.topic
    this.services = given.services
    this.file = given.file
    this.root = given.root
    this.options = given.options
    this.patienceMs = given.patienceMs
    this.say = given.say
  }

  private start(transport: TransportName, point?: string) {
    this.processes++
    const { file, root, services } = this
    const more = { ...(root !== undefined && { root }), ...(point !== undefined && { point }) }
    return bridgeProcess(services.through(transport), file, more)
  }
  readonly begin = Effect.fnUntraced(function* (this: Run) {
    this.running = [yield* this.start("native"), yield* this.start("websocket")]
    yield* this.moves()
  })
  /** How far each direction has come. */
  private async progress(): Promise<readonly [out: number, back: number]> {
    const { kafkaOptions } = this.ends
    const { name } = this.options
    const parts = Array.from({ length: partitions.pulsar }, (_, i) => `${full(this.topic)}-partition-${i}`)
    const back = await Promise.all(
      parts.map((part) => progressOf(kafkaOptions, `${name}/back/${part}`, `${name}-positions`))
    )
    return [await progressOf(kafkaOptions, `${name}/out`, this.topic), back.reduce((sum, one) => sum + one, 0)]
  }
  /** Waits until something more was mirrored each way. */
  private readonly moves = Effect.fnUntraced(function* (this: Run) {
    let [outBefore, backBefore] = [Infinity, Infinity]
    yield* patiently(
      "records move",
      Effect.map(
        Effect.promise(() => this.progress()),
        ([out, back]) => {
          outBefore = Math.min(outBefore, out)
          backBefore = Math.min(backBefore, back)
          return out > outBefore && back > backBefore
        }
      ),
      this.patienceMs
    )
  })
  /** Puts another process in the place of one that is gone. */
  private readonly replace = Effect.fnUntraced(function* (
    this: Run,
    slot: number,
    transport: TransportName,
    point?: string
  ) {
    const one = this.running[slot]!
    one.signal("SIGKILL")
    yield* Effect.promise(() => one.ended)
    this.running = this.running.with(slot, yield* this.start(transport, point))
    return this.running[slot]!
  })
  /** Waits for what a process does at a point; after a while it has all the work for itself. */
  private readonly alone = Effect.fnUntraced(function* (
    this: Run,
    slot: number,
    transport: TransportName,
    what: string,
    condition: Effect.Effect<boolean>
  ) {
    const soon = yield* Effect.exit(patiently(what, condition, aloneMs))
    if (soon._tag === "Success") return
    const other = this.running[1 - slot]!
    other.signal("SIGKILL")
    yield* Effect.promise(() => other.ended)
    yield* patiently(`${what}: ${this.running[slot]!.said()}`, condition, this.patienceMs)
    yield* this.replace(1 - slot, transport)
  })

  readonly step = Effect.fnUntraced(function* (this: Run, step: Step, slot: number) {
    const fell = this.running.find((one) => !one.isAlive())
    if (fell !== undefined) return yield* Effect.fail(new Hang(`a process fell: ${fell.said()}`))
    // a bridge that finds no broker when it starts says so and ends
    const up = Effect.sync(() => this.running.every((one) => !one.isAlive() || one.url() !== undefined))
    yield* patiently("processes start", up, this.patienceMs)
    yield* this.moves()
    yield* this.happen(step, slot)
    this.done[step.kind] = (this.done[step.kind] ?? 0) + 1
  })
  private readonly happen = Effect.fnUntraced(function* (this: Run, step: Step, slot: number) {
    const { ends, services, topic } = this
    const { transport } = step
    if (step.kind === "kill") {
      const armed = yield* this.replace(slot, transport, `kill:${step.point}:${step.nth}`)
      yield* this.alone(
        slot,
        transport,
        step.point,
        Effect.sync(() => !armed.isAlive())
      )
      yield* this.replace(slot, transport)
    } else if (step.kind === "killAtRandom") {
      yield* Effect.sleep(step.afterMs)
      yield* this.replace(slot, transport)
    } else if (step.kind === "zombie") yield* this.zombie(step, slot)
    else if (step.kind === "forget") {
      for (const one of this.running) one.signal("SIGKILL")
      yield* Effect.promise(() => forgetProducers(ends, full(topic)))
      yield* this.replace(0, transport)
      yield* this.replace(1, transport)
    } else if (step.kind === "cut") {
      services.cut()
      yield* Effect.sleep(200)
      services.cut()
    } else {
      const service = services[step.kind]
      yield* service.kill
      yield* Effect.sleep(step.downMs)
      yield* service.start
      const from = yield* Clock.currentTimeMillis
      yield* this.moves()
      const seconds = ((yield* Clock.currentTimeMillis) - from) / 1_000
      this.say(`${step.kind} is back, and ${seconds.toFixed(1)} s later records move both ways`)
    }
  })
  private readonly zombie = Effect.fnUntraced(function* (
    this: Run,
    step: Step & { readonly kind: "zombie" },
    slot: number
  ) {
    const { transport } = step
    const armed = yield* this.replace(slot, transport, `stop:${step.point}:${step.nth}`)
    yield* this.alone(
      slot,
      transport,
      `zombie at ${step.point}`,
      Effect.sync(() => armed.isStopped())
    )
    this.paused = true
    yield* this.settle("others do a zombie's work")
    armed.signal("SIGCONT")
    this.paused = false
    yield* Effect.sleep(harmMs)
    yield* this.moves()
    yield* this.replace(slot, transport)
  })
  /** Waits until the other side has everything, as long as it comes nearer to that. */
  readonly settle = Effect.fnUntraced(function* (this: Run, what: string) {
    let [least, since] = [Infinity, yield* Clock.currentTimeMillis]
    while (least > 0) {
      const exit = yield* Effect.exit(compare(this.ends, this.topic))
      const now = yield* Clock.currentTimeMillis
      if (exit._tag === "Success" && exit.value.lost < least) [least, since] = [exit.value.lost, now]
      const said = () => this.running.map((one) => one.said().slice(-1_500)).join("\n")
      if (now - since > this.patienceMs) return yield* Effect.fail(new Hang(`${what}: ${said()}`))
      if (least > 0) yield* Effect.sleep(500)
    }
  })
  /** Ends both in good order; what is left to do afterwards is nothing. */
  readonly end = Effect.fnUntraced(function* (this: Run) {
    for (const one of this.running) one.signal("SIGTERM")
    for (const one of this.running) {
      const code = yield* Effect.promise(() => one.ended)
      if (code !== 0) return yield* Effect.fail(new Hang(`SIGTERM: ended with ${code}: ${one.said()}`))
    }
    yield* mirrorOnce(yield* this.ends.bridge(this.options))
  })
}

const prepared = Effect.fnUntraced(function* (
  { copied, patches = [], patienceMs = usualMs, say }: RunOptions,
  all: Services
) {
  const ends = yield* both(all.direct)
  const [name, topic] = [unique("bridge"), unique("fault")]
  const settings = { "max.message.bytes": String(kafkaBytes) }
  yield* ends.log.declare([
    { name: topic, partitions: partitions.kafka, compacted: false, retentionMs: undefined, kafka: { settings } }
  ])
  yield* partitioned(ends, full(topic), partitions.pulsar)
  const where = { header: skipped, not: true }
  const options: BridgeOptions = {
    name,
    rules: [
      { name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}`, where },
      { name: "back", from: `pulsar:${full(topic)}`, to: `kafka:${topic}`, where }
    ]
  }
  const file = yield* rulesFile(options)
  const tree = copied
    ? yield* Effect.acquireRelease(
        Effect.sync(() => patchedCopy([...points, ...patches])),
        ({ remove }) => Effect.sync(remove)
      )
    : undefined
  return new Run({ ends, topic, services: all, file, root: tree?.root, options, patienceMs, say })
})

/** Does a run. It fails where it could not begin; what did not come about later is in the report. */
export const execute = Effect.fnUntraced(function* (
  options: RunOptions,
  all: Services
): Effect.fn.Return<Report, unknown, Scope.Scope> {
  const { maxMs = Infinity, say, seed, steps } = options
  const began = yield* Clock.currentTimeMillis
  const run = yield* prepared(options, all)
  let over = false
  const random = randomOf(seed + 1)
  const writer = yield* Effect.forkChild(
    writing(
      run.ends,
      run.topic,
      random,
      () => over,
      () => run.paused
    )
  )
  const going = Effect.gen(function* () {
    yield* run.begin()
    for (const [i, step] of steps.entries()) {
      if ((yield* Clock.currentTimeMillis) - began > maxMs) break
      say(`${i + 1}/${steps.length} ${JSON.stringify(step)}`)
      yield* run.step(step, i % 2)
    }
    over = true
    yield* Fiber.join(writer)
    yield* run.settle("everything is mirrored in the end")
    yield* run.end()
  })
  const exit = yield* Effect.exit(going)
  over = true
  const hang = exit._tag === "Success" ? undefined : String(exit.cause)
  const found = yield* compare(run.ends, run.topic)
  const seconds = Math.round(((yield* Clock.currentTimeMillis) - began) / 1_000)
  const { disordered, doubled, examples, letters, lost, mirrored, wrong } = found
  const { done, processes } = run
  const cycles = Object.values(done).reduce((sum, count) => sum + count, 0)
  return { seed, cycles, done, processes, seconds, mirrored, letters, lost, doubled, disordered, wrong, hang, examples }
})
