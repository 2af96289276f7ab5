// One run: two processes of a bridge that mirrors a topic both ways while both sides are written, faults one after another, and the comparison.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { mirrorOnce } from "../../../src/bridge/bridge.ts"
import type { BridgeOptions } from "../../../src/bridge/definition.ts"
import {
  type BothSides,
  openBothSides,
  forgetProducers,
  full,
  partitioned,
  progressOf,
  unique
} from "../../support/bridge.ts"
import { type BridgeProcess, bridgeProcess, rulesFile } from "../../support/bridge-process.ts"
import type { TransportName } from "../../support/pulsar.ts"
import { randomOf } from "../../support/random.ts"
import type { Outcome } from "../harness/command.ts"
import { type Patch, patchedCopy } from "../harness/patched-copy.ts"
import { Hang } from "../harness/until.ts"
import { compare } from "./compare.ts"
import { kafkaBytes, partitions, skipped, writing } from "./load.ts"
import type { FaultKind, Step } from "./plan.ts"
import { points, strangeThrows } from "./points.ts"
import type { Services } from "./services.ts"

/** Options of a run. */
export interface RunOptions {
  readonly seed: number
  readonly steps: ReadonlyArray<Step>
  /** The patches of a mutant. */
  readonly patches?: ReadonlyArray<Patch>
  /** Whether processes run in a patched copy of the tree. Without it there are no points and no mutants. */
  readonly copied: boolean
  /** How long the run waits for anything, in milliseconds. */
  readonly patienceMs?: number
  /** After so many milliseconds no further step begins. */
  readonly maxMs?: number
  readonly say: (line: string) => void
}
/** The result of a run. */
export interface Report extends Outcome {
  readonly seed: number
  /** How many faults happened. */
  readonly cycles: number
  /** How many of each kind. */
  readonly done: Readonly<Partial<Record<FaultKind, number>>>
  readonly processes: number
  readonly seconds: number
  /** Records that had to be mirrored. */
  readonly mirrored: number
  /** Records that had to become dead deadLetters. */
  readonly deadLetters: number
}
const usualMs = 120_000
/** How long a stopped process may do harm after it continues, before it is killed. */
const harmMs = 3_000
/** If a process has not reached its point within this time the other one is killed, so that it has all the work. */
const aloneMs = 4_000

/** Asks until the answer is true, also if asking fails. Fails with a `Hang` after so many milliseconds. */
const waitUntil = Effect.fnUntraced(function* (
  what: string,
  condition: Effect.Effect<boolean, unknown>,
  ms: number
): Effect.fn.Return<void, Hang> {
  const until = (yield* Clock.currentTimeMillis) + ms
  while (true) {
    // brokers may be down, which makes asking fail
    const exit = yield* Effect.exit(condition)
    if (exit._tag === "Success" && exit.value) return
    if ((yield* Clock.currentTimeMillis) > until) return yield* Effect.fail(new Hang(`did not happen in time: ${what}`))
    yield* Effect.sleep(50)
  }
})

class Run {
  processes = 0
  paused = false
  readonly done: Partial<Record<FaultKind, number>> = {}
  readonly sides: BothSides
  readonly topic: string
  readonly options: BridgeOptions
  private readonly patienceMs: number
  private readonly services: Services
  private readonly file: string
  private readonly root: string | undefined
  private readonly say: (line: string) => void
  private running: ReadonlyArray<BridgeProcess> = []

  constructor(given: {
    sides: BothSides
    topic: string
    services: Services
    file: string
    root: string | undefined
    options: BridgeOptions
    patienceMs: number
    say: (line: string) => void
  }) {
    this.sides = given.sides
    this.topic = given.topic
    this.services = given.services
    this.file = given.file
    this.root = given.root
    this.options = given.options
    this.patienceMs = given.patienceMs
    this.say = given.say
  }

  private launch(transport: TransportName, point?: string) {
    this.processes++
    const { file, root, services } = this
    const more = { ...(root !== undefined && { root }), ...(point !== undefined && { point }) }
    return bridgeProcess(services.through(transport), file, more)
  }
  /** Starts one process on each transport, and waits until records move. */
  readonly begin = Effect.fnUntraced(function* (this: Run) {
    this.running = [yield* this.launch("native"), yield* this.launch("websocket")]
    yield* this.untilMoving()
  })
  /** The sum of the committed positions of each direction. */
  private async progress(): Promise<readonly [out: number, back: number]> {
    const { kafkaOptions } = this.sides
    const { name } = this.options
    const parts = Array.from({ length: partitions.pulsar }, (_, i) => `${full(this.topic)}-partition-${i}`)
    const back = await Promise.all(
      parts.map((part) => progressOf(kafkaOptions, `${name}/back/${part}`, `${name}-positions`))
    )
    return [await progressOf(kafkaOptions, `${name}/out`, this.topic), back.reduce((sum, one) => sum + one, 0)]
  }
  /** Waits until both directions have committed further. */
  private readonly untilMoving = Effect.fnUntraced(function* (this: Run) {
    let [outBefore, backBefore] = [Infinity, Infinity]
    yield* waitUntil(
      "records to move in both directions",
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
  /** Kills the process of a slot, if it still runs, and starts another one there. */
  private readonly replace = Effect.fnUntraced(function* (
    this: Run,
    slot: number,
    transport: TransportName,
    point?: string
  ) {
    const one = this.running[slot]!
    one.signal("SIGKILL")
    yield* Effect.promise(() => one.ended)
    this.running = this.running.with(slot, yield* this.launch(transport, point))
    return this.running[slot]!
  })
  /** Waits until a process is killed or stopped at its point. If that takes long the other process is killed, so that this one has all the work. */
  private readonly untilAtPoint = Effect.fnUntraced(function* (
    this: Run,
    slot: number,
    transport: TransportName,
    what: string,
    condition: Effect.Effect<boolean>
  ) {
    const soon = yield* Effect.exit(waitUntil(what, condition, aloneMs))
    if (soon._tag === "Success") return
    const other = this.running[1 - slot]!
    other.signal("SIGKILL")
    yield* Effect.promise(() => other.ended)
    yield* waitUntil(`${what}: ${this.running[slot]!.said()}`, condition, this.patienceMs)
    yield* this.replace(1 - slot, transport)
  })

  /** Carries out one step, and waits before it until both processes run and records move. */
  readonly step = Effect.fnUntraced(function* (this: Run, step: Step, slot: number) {
    const ended = this.running.find((one) => !one.isAlive())
    if (ended !== undefined) return yield* Effect.fail(new Hang(`a process ended by itself: ${ended.said()}`))
    // a process that is still starting must not lose a broker
    const up = Effect.sync(() => this.running.every((one) => !one.isAlive() || one.url() !== undefined))
    yield* waitUntil("start of both processes", up, this.patienceMs)
    yield* this.untilMoving()
    yield* this.perform(step, slot)
    this.done[step.kind] = (this.done[step.kind] ?? 0) + 1
  })
  private readonly perform = Effect.fnUntraced(function* (this: Run, step: Step, slot: number) {
    const { sides, services, topic } = this
    const { transport } = step
    if (step.kind === "kill") {
      const armed = yield* this.replace(slot, transport, `kill:${step.point}:${step.nth}`)
      yield* this.untilAtPoint(
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
      yield* Effect.promise(() => forgetProducers(sides, full(topic)))
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
      yield* this.untilMoving()
      const seconds = ((yield* Clock.currentTimeMillis) - from) / 1_000
      this.say(`${step.kind} is back, and records moved in both directions ${seconds.toFixed(1)} s later`)
    }
  })
  private readonly zombie = Effect.fnUntraced(function* (
    this: Run,
    step: Step & { readonly kind: "zombie" },
    slot: number
  ) {
    const { transport } = step
    const armed = yield* this.replace(slot, transport, `stop:${step.point}:${step.nth}`)
    yield* this.untilAtPoint(
      slot,
      transport,
      `stop at ${step.point}`,
      Effect.sync(() => armed.isStopped())
    )
    this.paused = true
    yield* this.settle("the other process to do the work of a stopped one")
    armed.signal("SIGCONT")
    this.paused = false
    yield* Effect.sleep(harmMs)
    yield* this.untilMoving()
    yield* this.replace(slot, transport)
  })
  /** Waits until nothing is missing on the other side. Gives up if the number of missing records has not decreased for long. */
  readonly settle = Effect.fnUntraced(function* (this: Run, what: string) {
    let [least, since] = [Infinity, yield* Clock.currentTimeMillis]
    while (least > 0) {
      const exit = yield* Effect.exit(compare(this.sides, this.topic))
      const now = yield* Clock.currentTimeMillis
      if (exit._tag === "Success" && exit.value.differences.counts.lost < least)
        [least, since] = [exit.value.differences.counts.lost, now]
      const said = () => this.running.map((one) => one.said().slice(-1_500)).join("\n")
      if (now - since > this.patienceMs)
        return yield* Effect.fail(new Hang(`did not happen in time: ${what}: ${said()}`))
      if (least > 0) yield* Effect.sleep(500)
    }
  })
  /** Ends both processes by SIGTERM, then mirrors once what they left, such as acknowledgements. */
  readonly end = Effect.fnUntraced(function* (this: Run) {
    for (const one of this.running) one.signal("SIGTERM")
    for (const one of this.running) {
      const code = yield* Effect.promise(() => one.ended)
      if (code !== 0) return yield* Effect.fail(new Hang(`a process ended with ${code} on SIGTERM: ${one.said()}`))
    }
    yield* mirrorOnce(yield* this.sides.bridge(this.options))
  })
}

/** Creates the topics, the rules file and the patched copy. */
const prepare = Effect.fnUntraced(function* (
  { copied, patches = [], patienceMs = usualMs, say }: RunOptions,
  all: Services
) {
  const sides = yield* openBothSides(all.direct)
  const [name, topic] = [unique("bridge"), unique("fault")]
  const settings = { "max.message.bytes": String(kafkaBytes) }
  yield* sides.log.declare([
    { name: topic, partitions: partitions.kafka, compacted: false, retentionMs: undefined, kafka: { settings } }
  ])
  yield* partitioned(sides, full(topic), partitions.pulsar)
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
        Effect.sync(() => patchedCopy([...points, strangeThrows, ...patches])),
        ({ remove }) => Effect.sync(remove)
      )
    : undefined
  return new Run({ sides, topic, services: all, file, root: tree?.root, options, patienceMs, say })
})

/** Carries out a run and compares both sides. Fails if the run cannot begin; what does not happen later is in the report. */
export const execute = Effect.fnUntraced(function* (
  options: RunOptions,
  all: Services
): Effect.fn.Return<Report, unknown, Scope.Scope> {
  const { maxMs = Infinity, say, seed, steps } = options
  const began = yield* Clock.currentTimeMillis
  const run = yield* prepare(options, all)
  let over = false
  const random = randomOf(seed + 1)
  const writer = yield* Effect.forkChild(
    writing(
      run.sides,
      run.topic,
      random,
      () => over,
      () => run.paused,
      options.copied
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
    yield* run.settle("everything to be mirrored")
    yield* run.end()
  })
  const exit = yield* Effect.exit(going)
  over = true
  const hang = exit._tag === "Success" ? undefined : String(exit.cause)
  const found = yield* compare(run.sides, run.topic)
  const seconds = Math.round(((yield* Clock.currentTimeMillis) - began) / 1_000)
  const { differences, deadLetters, mirrored } = found
  const { doubled, lost, order: disordered, wrong } = differences.counts
  const { examples } = differences
  const { done, processes } = run
  const cycles = Object.values(done).reduce((sum, count) => sum + count, 0)
  return {
    seed,
    cycles,
    done,
    processes,
    seconds,
    mirrored,
    deadLetters,
    lost,
    doubled,
    disordered,
    wrong,
    hang,
    examples
  }
})
