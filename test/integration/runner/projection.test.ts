// The runner on PostgreSQL against the engine in memory, by random projections, events and batches: the same rows, messages, late events
// and dead letters.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { recordFromEnvelope, retryRecord } from "../../../src/dead-letter/retry-record.ts"
import { Log, type Batch, type Reader } from "../../../src/log/log.ts"
import { query } from "../../../src/postgres/client/client.ts"
import type { Row } from "../../../src/model/recorder.ts"
import { MemoryEngine } from "../../../src/runner/in-memory.ts"
import { halts } from "../../support/engine.ts"
import { memoryEngine } from "../../support/memory-engine.ts"
import { server } from "../../support/postgres.ts"
import {
  knownUsers,
  randomEvents,
  randomProjection,
  randomVariant,
  type Variant
} from "../../support/random-projection.ts"
import { randomOf, seed, type Random } from "../../support/random.ts"
import {
  bySize,
  outbox,
  outboxOf,
  same,
  plain,
  sameDeadLetters,
  sameLate,
  sameProgress,
  sameRows,
  type Engine,
  type Message
} from "../../support/same-as-memory.ts"
import { isLong } from "../../support/size.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** A batch as the runner took it. */
interface Taken {
  readonly topic: string
  readonly partition: number
  readonly batch: Batch
}
/** The log with batches that end anywhere. Only one is processed at a time, over all partitions, and each is noted in order. */
const inTurn = (log: Log["Service"], random: Random, most: number, taken: Array<Taken>): Log["Service"] => {
  const turn = Semaphore.makeUnsafe(1)
  return Log.of({
    ...log,
    assign: (topic, group, use, options) =>
      log.assign(
        topic,
        group,
        (assignment) =>
          use({
            ...assignment,
            open: Effect.fnUntraced(function* (from) {
              const reader = chop(yield* assignment.open(from), random, most)
              let hasTurn = false
              const pass = Effect.suspend(() => {
                if (!hasTurn) return Effect.void
                hasTurn = false
                return turn.release(1)
              })
              yield* Effect.addFinalizer(() => pass)
              const take = Effect.gen(function* () {
                yield* pass
                const batch = yield* reader.take
                yield* turn.take(1)
                hasTurn = true
                taken.push({ topic, partition: assignment.partition, batch })
                return batch
              })
              return { take }
            })
          }),
        options
      )
  })
}
const chop = (reader: Reader, random: Random, most: number): Reader => {
  let rest: Batch | undefined
  return {
    take: Effect.suspend(() =>
      Effect.map(rest === undefined ? reader.take : Effect.succeed(rest), (batch): Batch => {
        const count = random.int(1, most)
        rest = undefined
        if (batch.records.length <= count) return batch
        rest = { ...batch, records: batch.records.slice(count) }
        return { ...batch, records: batch.records.slice(0, count), next: rest.records[0]!.position }
      })
    )
  }
}

/** Plays a projection on PostgreSQL, and the batches that the runner took in memory: everything is the same, message for message. */
const playBatches = Effect.fnUntraced(function* (random: Random) {
  const partitions = random.int(1, 4)
  const variant = randomVariant(random)
  const { known, projection, second, source, state } = randomProjection(random, partitions, variant)
  const sources = variant.hasTwoSources ? [source, second] : [source]
  const events = randomEvents(random, random.int(50, 250), variant).map((event) =>
    // one that cannot be read
    random.chance(0.01) ? Object.assign({}, event, { friend: 5 }) : event
  )
  const taken: Array<Taken> = []
  const most = random.pick([1, 5, 40])
  const { append, handle, log, sql } = yield* memoryEngine(root, projection, [...sources, known], {
    partitions,
    wrap: (log) => inTurn(log, random, most, taken)
  })
  yield* append(known, knownUsers)
  let engine: Engine | undefined
  const halted = new Set<string>()

  /** Lets the runner handle everything in a life of its own, and an engine in memory that goes on from the store of the one before. */
  const compare = Effect.fnUntraced(function* () {
    taken.length = 0
    // or a partition would count as halted before it is claimed again
    yield* query("forget halts", () => sql`update millrace.progress set halted = null`)
    yield* handle
    const next: Engine = new MemoryEngine(projection as never, partitions, engine?.store)
    next.seed(known, knownUsers)
    halted.clear()
    for (const { batch, partition, topic } of taken) {
      yield* Effect.catchTag(next.processBatch(topic, partition, batch), "Mismatch", () =>
        Effect.sync(() => halted.add(`any ${topic}/${partition}`))
      )
    }
    engine = next
    assert.deepStrictEqual([...(yield* halts(sql)).keys()].toSorted(bySize), [...halted].toSorted(bySize), "halts")
    yield* sameRows(sql, next)
    yield* sameLate(sql, next, true)
    yield* sameDeadLetters(sql, next)
    yield* sameProgress(sql, next)
    const sent = yield* outbox(sql, (topic) => (topic === "told" ? 2 : partitions))
    same(plain(sent), plain(outboxOf(next)), "messages")
    return next
  })
  for (let from = 0; from < events.length;) {
    const part = events.slice(from, from + random.int(20, events.length))
    from += part.length
    for (const topic of sources)
      yield* append(
        topic,
        part.filter(({ type }) => topic.types!.includes(type))
      )
    yield* compare()
  }
  // some dead letters are retried, with handlers that throw no more
  state.isFixed = true
  for (const { at, envelope, position, value } of engine!.store.deadLetters) {
    if (envelope === undefined || random.chance(0.5)) continue
    const record = recordFromEnvelope(envelope, at.partition, value)
    yield* log.append(at.topic, [retryRecord(record, projection.name, position)])
  }
  const { store } = yield* compare()
  return {
    dead: store.deadLetters.length,
    retried: store.deadLetters.filter(({ status }) => status === "retried").length
  }
})

/** Plays events on PostgreSQL, and through the engine's own way from events to records: batches differ, and the outcome does not. */
const playEvents = Effect.fnUntraced(function* (random: Random) {
  const partitions = random.int(1, 4)
  const variant: Variant = { ...randomVariant(random), hasTwoSources: false }
  const { known, projection, source } = randomProjection(random, partitions, variant)
  const events = randomEvents(random, random.int(50, 250), variant)
  const most = random.pick([1, 5, 40])
  const { append, handle, sql } = yield* memoryEngine(root, projection, [source, known], {
    partitions,
    wrap: (log) => inTurn(log, random, most, [])
  })
  yield* append(known, knownUsers)
  const engine: Engine = new MemoryEngine(projection as never, partitions)
  engine.seed(known, knownUsers)
  for (let from = 0; from < events.length;) {
    const part = events.slice(from, from + random.int(20, events.length))
    from += part.length
    yield* append(source, part)
    yield* handle
    const stopped = yield* Effect.isFailure(engine.process(part as never))
    if ((yield* halts(sql)).size > 0) {
      assert.isTrue(stopped, "the partition is halted")
      return
    }
    assert.isFalse(stopped)
    yield* sameRows(sql, engine)
  }
  yield* sameLate(sql, engine, true)
  yield* sameDeadLetters(sql, engine)
  const published = (messages: ReadonlyArray<Message>) =>
    messages
      .filter(([, topic]) => topic === "said" || topic === "told")
      .toSorted(([a, x], [b, y]) => bySize(`${a} ${x}`, `${b} ${y}`))
  const sent = yield* outbox(sql, (topic) => (topic === "told" ? 2 : partitions))
  same(published(sent), published(outboxOf(engine)), "messages of handlers")
  // a window's rows come once a batch, and the last one counts
  const last = (messages: ReadonlyArray<Message>) => {
    const windows = messages.filter(([, topic]) => topic !== "said" && topic !== "told" && !topic.endsWith(".dlq"))
    const idOf = ([stream, topic, key, , , , value]: Message) => {
      const { tag, window_size, window_start } = value as Row
      return JSON.stringify([stream, topic, key, window_size, window_start, tag])
    }
    return [...new Map(windows.map((message) => [idOf(message), message]))].toSorted(([a], [b]) => bySize(a, b))
  }
  same(last(sent), last(outboxOf(engine)), "rows of windows")
})

const runs = Number(process.env["MILLRACE_TEST_RUNS"] ?? (isLong ? 40 : 3))
describe("the runner on PostgreSQL commits what the engine in memory does", () => {
  for (let run = 0; run < runs; run++) {
    it.live(`batch by batch, run ${run}, seed ${seed}`, () => Effect.scoped(playBatches(randomOf(seed + run))), 60_000)
  }
  for (let run = 0; run < runs; run++) {
    it.live(`from events, run ${run}, seed ${seed}`, () => Effect.scoped(playEvents(randomOf(seed + run))), 60_000)
  }
})
