// Random commands against the event store and against a model of it: they answer alike, and the store has what the model has.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import {
  type Append,
  type Appended,
  type AppendError,
  type Expected,
  EventStore
} from "../../src/aggregate/event-store.ts"
import { partitionOf } from "../../src/model/partitioner.ts"
import { randomOf, seed, type Random } from "../support/random.ts"
import { appendOf, event, fresh, type It, numbers, readAll, topicOf } from "./event-store-support.ts"

const partitions = 3
const streams = ["a", "b", "c", "d", "é"]

/** What a store should do, in the simplest words. */
class Model {
  readonly streams = new Map<string, Array<number>>()
  readonly closed = new Set<string>()
  readonly answers = new Map<string, readonly [first: number, last: number, digest: string | undefined]>()
  readonly snapshots = new Map<string, number>()
  readonly topic: ReadonlyArray<Array<string>> = Array.from({ length: partitions }, () => [])

  of(stream: string): Array<number> {
    const list = this.streams.get(stream) ?? []
    this.streams.set(stream, list)
    return list
  }
  /** The answer to an append: versions, or what it is refused with. */
  append({ digest, events, expected, stream }: Append, id: string): string {
    const list = this.of(stream)
    const before = this.answers.get(`${stream} ${id}`)
    if (before !== undefined) {
      if (digest !== undefined && before[2] !== undefined && digest !== before[2]) return "CommandReused"
      return `${before[0]}-${before[1]} repeated`
    }
    if (this.closed.has(stream)) return "StreamClosed"
    const fits =
      expected === "any" ||
      (expected === "exists" ? list.length > 0 : list.length === (expected === "noStream" ? 0 : expected))
    if (!fits) return `VersionConflict ${list.length}`
    const first = list.length + 1
    for (const n of numbers(events)) {
      list.push(n)
      this.topic[partitionOf(stream, partitions)]!.push(`${stream} ${n} ${list.length}`)
    }
    this.answers.set(`${stream} ${id}`, [first, list.length, digest])
    return `${first}-${list.length}`
  }
  remember(stream: string, id: string, digest: string): string {
    const before = this.answers.get(`${stream} ${id}`)
    if (before?.[2] !== undefined && before[2] !== digest) return "CommandReused"
    const { length } = this.of(stream)
    const [first, last] = before ?? [length + 1, length]
    if (before === undefined) this.answers.set(`${stream} ${id}`, [first, last, digest])
    return `${first}-${last}`
  }
}

const textOf = (result: Result.Result<Appended, AppendError>): string => {
  if (result._tag === "Success") {
    const { firstVersion, repeated, version } = result.success
    return `${firstVersion}-${version}${repeated ? " repeated" : ""}`
  }
  const { failure } = result
  return failure._tag === "VersionConflict" ? `VersionConflict ${failure.actual}` : failure._tag
}

const expectedOf = (random: Random, length: number): Expected =>
  random.pick<Expected>(["any", "exists", "noStream", length, length, length, length + 1, Math.max(0, length - 1)])

/** Runs random sequences of commands. */
export const eventStoreModel = (it: It) => {
  it.effect(
    `random commands are answered as by a model (seed ${seed})`,
    Effect.fnUntraced(function* () {
      for (let run = 0; run < 6; run++) yield* sequence(randomOf(seed + run))
    })
  )
}

const sequence = Effect.fnUntraced(function* (random: Random) {
  const store = yield* EventStore
  const aggregate = yield* fresh(partitions)
  const model = new Model()
  let n = 0
  const ids = Array.from({ length: 30 }, (_, i) => `${aggregate} ${i}`)
  for (let step = 0; step < 60; step++) {
    const stream = random.pick(streams)
    const id = random.pick(ids)
    const digest = random.pick([undefined, "d1", "d1", "d2"])
    const dice = random.next()
    if (dice < 0.7) {
      const events = Array.from({ length: random.int(1, 3) }, () => event(++n))
      const expected = expectedOf(random, model.of(stream).length)
      const append = appendOf(aggregate, stream, expected, events, digest === undefined ? {} : { digest })
      const result = yield* Effect.result(store.append(append, id))
      assert.strictEqual(textOf(result), model.append(append, id), `step ${step}: ${JSON.stringify(append)} ${id}`)
    } else if (dice < 0.8) {
      const result = yield* Effect.result(
        store.remember(aggregate, stream, id, digest ?? "d1", { version: model.of(stream).length })
      )
      const given =
        result._tag === "Failure"
          ? result.failure._tag
          : `${result.success.version - result.success.events.length + 1}-${result.success.version}`
      assert.strictEqual(given, model.remember(stream, id, digest ?? "d1"), `step ${step}`)
    } else if (dice < 0.82) {
      yield* store.archive(aggregate, stream)
      model.closed.add(stream)
    } else if (dice < 0.9) {
      const version = random.int(0, model.of(stream).length)
      if (version === 0) continue
      yield* store.saveSnapshot(aggregate, stream, { shape: "s", version, state: String(version), subjects: [] })
      model.snapshots.set(stream, Math.max(version, model.snapshots.get(stream) ?? 0))
    } else {
      const upTo = random.int(1, model.of(stream).length + 2)
      const at = model.snapshots.get(stream) ?? 0
      const page = yield* store.load(aggregate, stream, { shape: "s", upTo, commandId: id })
      assert.strictEqual(page.snapshot?.state, at === 0 || at > upTo ? undefined : String(at), `step ${step}`)
      assert.deepStrictEqual(numbers(page.events), model.of(stream).slice(at > upTo ? 0 : at, upTo), `step ${step}`)
      assert.strictEqual(page.version, model.of(stream).length)
      const answered =
        page.answered && `${page.answered.version - page.answered.events.length + 1}-${page.answered.version}`
      assert.strictEqual(answered, model.answers.get(`${stream} ${id}`)?.slice(0, 2).join("-"), `step ${step}`)
    }
  }
  for (const stream of streams)
    assert.deepStrictEqual(numbers(yield* readAll(aggregate, stream)), model.of(stream), stream)
  const topic = yield* topicOf(aggregate)
  for (const [partition, records] of topic.entries()) {
    assert.deepStrictEqual(
      records.map((record) => `${record.key} ${numbers([record])[0]} ${record.headers["millrace-version"]}`),
      model.topic[partition]
    )
    assert.deepStrictEqual(
      records.map(({ position }) => position),
      records.map((_, i) => i)
    )
  }
})
