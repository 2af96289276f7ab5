// The runner on PostgreSQL against the driver in memory: random handlers, events and batches give the same rows, late rows and messages.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Driver } from "../../../src/runner/in-memory.ts"
import { Log, type Batch, type Reader } from "../../../src/log/log.ts"
import { partitionOf } from "../../../src/model/partitioner.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import type { Row } from "../../../src/model/recorder.ts"
import { halts } from "../../support/engine.ts"
import { memoryEngine, parked } from "../../support/memory-engine.ts"
import { server } from "../../support/postgres.ts"
import { knownUsers, randomEvents, randomProjection } from "../../support/random-projection.ts"
import { randomOf, seed, type Random } from "../../support/random.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** The log, with batches that end anywhere. */
const chopped = (log: Log["Service"], random: Random, most: number): Log["Service"] =>
  Log.of({
    ...log,
    assign: (topic, group, use, options) =>
      log.assign(
        topic,
        group,
        (assignment) =>
          use({
            ...assignment,
            open: (from) => Effect.map(assignment.open(from), (reader) => chop(reader, random, most))
          }),
        options
      )
  })
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

type Message = { readonly topic: string; readonly key: string; readonly partition: number | null; readonly value: Row }
/** The outbox, stream by stream in order. Segments must follow one another without a gap. */
const outbox = Effect.fnUntraced(function* (sql: Sql) {
  const segments = yield* query(
    "read the outbox",
    () => sql`select * from millrace.outbox order by projection, source, partition, first_seq`
  )
  const ends = new Map<number, number>()
  return segments.flatMap((segment): ReadonlyArray<Message> => {
    const { first_seq, messages, meta, partition, target, target_partition, vals } = segment
    assert.strictEqual(first_seq, (ends.get(partition) ?? 0) + 1, `the outbox of partition ${partition}`)
    ends.set(partition, first_seq + messages - 1)
    const metas = JSON.parse(meta) as ReadonlyArray<ReadonlyArray<unknown>>
    const lines = (vals as string).split("\n")
    assert.deepStrictEqual([metas.length, lines.length], [messages, messages], `a segment for ${target}`)
    return lines.map((line, i) => ({
      topic: target,
      key: metas[i]![0] as string,
      partition: target_partition,
      value: JSON.parse(line) as Row
    }))
  })
})

const bySize = (a: string, b: string) => (a < b ? -1 : 1)
const texts = (rows: ReadonlyArray<Row>, columns: ReadonlyArray<string>) =>
  rows.map((row) => JSON.stringify(columns.map((column) => row[column] ?? null))).toSorted(bySize)
const columnsOf = (rows: ReadonlyArray<Row>) => [...new Set(rows.flatMap((row) => Object.keys(row)))].toSorted()

const sameRows = Effect.fnUntraced(function* (sql: Sql, driver: Driver<never, never, never>) {
  for (const [name, expected] of Object.entries(driver.rows())) {
    const rows = yield* query(`read ${name}`, () => sql`select * from ${sql(name)}`)
    const columns = columnsOf([...rows, ...expected])
    assert.deepStrictEqual(texts(rows, columns), texts(expected, columns), name)
  }
})
const sameLate = Effect.fnUntraced(function* (sql: Sql, driver: Driver<never, never, never>) {
  const rows = yield* query(
    "read late events",
    () => sql`select window_name as window, window_size, window_start, key from millrace.late_events`
  )
  const late = rows.map((row): Row => Object.assign(row, row["key"]))
  const columns = ["window", "window_size", "window_start", "user", "tag"]
  assert.deepStrictEqual(texts(late, columns), texts(driver.late, columns), "late events")
})
const group = <A>(items: ReadonlyArray<A>, by: (item: A) => string) =>
  Object.groupBy(items, by) as Record<string, Array<A>>
/** In order by user for what handlers publish; for windows' rows the last one counts, for they come once a batch. */
const sameMessages = (sent: ReadonlyArray<Message>, driver: Driver<never, never, never>, partitions: number) => {
  const said = (messages: ReadonlyArray<Message>) =>
    group(
      messages.filter(({ topic }) => topic === "said" || topic === "told"),
      ({ topic, value }) => `${topic} ${value["user"]}`
    )
  const plain = ({ key, topic, value }: Message) => ({ topic, key, value })
  const found = said(sent)
  const expected = said(driver.published)
  for (const name of new Set([...Object.keys(found), ...Object.keys(expected)])) {
    assert.deepStrictEqual(found[name]?.map(plain), expected[name]?.map(plain), name)
  }
  for (const { key, partition, topic } of sent) {
    if (partition !== null)
      assert.strictEqual(partition, partitionOf(key, topic === "told" ? 2 : partitions), `${topic} ${key}`)
  }
  const last = (messages: ReadonlyArray<Message>) => {
    const windows = messages.filter(({ topic }) => topic !== "said" && topic !== "told")
    const idOf = ({ key, topic, value }: Message) =>
      JSON.stringify([topic, key, value["window_size"], value["window_start"], value["tag"]])
    const columns = columnsOf(windows.map(({ value }) => value))
    return [...new Map(windows.map((message) => [idOf(message), message])).values()]
      .map((message) => `${idOf(message)} ${texts([message.value], columns)[0]}`)
      .toSorted(bySize)
  }
  assert.deepStrictEqual(last(sent), last(driver.published))
}

const play = Effect.fnUntraced(function* (random: Random) {
  const partitions = random.int(1, 4)
  const { known, projection, source } = randomProjection(random, partitions)
  const events = randomEvents(random, random.int(50, 250))
  const most = random.pick([1, 5, 40])
  // each part is handled in a life of its own: claims, caches and lookups are made anew
  const { append, handle, sql } = yield* memoryEngine(root, projection, [source, known], {
    partitions,
    wrap: (log) => chopped(log, random, most)
  })
  yield* append(known, knownUsers)

  const driver = new Driver(projection, { partitions })
  driver.seed(known, knownUsers)
  const model = driver as unknown as Driver<never, never, never>
  for (let from = 0; from < events.length;) {
    const count = random.int(20, events.length)
    const part = events.slice(from, from + count)
    from += count
    yield* append(source, part)
    yield* driver.batch(part)
    yield* handle
    assert.deepStrictEqual([...(yield* halts(sql))], [])
    yield* sameRows(sql, model)
  }
  assert.deepStrictEqual(yield* parked(sql), [])
  yield* sameLate(sql, model)
  sameMessages(yield* outbox(sql), model, partitions)
  return {
    late: driver.late.length,
    rows: Object.values(driver.rows()).flat().length,
    messages: driver.published.length
  }
})

describe("the runner equals the driver", () => {
  const runs = Number(process.env["MILLRACE_TEST_RUNS"] ?? 8)
  for (let run = 0; run < runs; run++) {
    it.live(`run ${run}, seed ${seed}`, () => Effect.scoped(play(randomOf(seed + run))), 60_000)
  }
})
