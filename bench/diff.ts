// `millrace diff` of two builds with many rows while both process events: how long it takes, for how long the live build is frozen, and the memory.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Agg, Application, Event, Projection, Topic, Window } from "../src/index.ts"
import type { NewRecord } from "../src/log/log.ts"
import { partitionOf } from "../src/model/partitioner.ts"
import { query, transaction } from "../src/postgres/client/client.ts"
import { createBuild } from "../src/postgres/store/builds.ts"
import { openDatabase } from "../src/system/database.ts"
import { diff } from "../src/system/diff.ts"
import { openSystem, runProjections } from "../src/system/system.ts"
import { percentile } from "./percentile.ts"

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "1000000" },
    rate: { type: "string", default: "500" },
    times: { type: "string", default: "5" }
  }
})
const [rows, rate, times] = [Number(values.rows), Number(values.rate), Number(values.times)]
const partitions = 4

const Seen = Event.make("seen", { id: Schema.String, entity: Schema.String, score: Schema.Finite, at: Schema.Int })
const source = Topic.events("seen", { events: [Seen], id: "id", key: "entity", eventTime: "at", partitions })
const activity = Window.tumbling("activity", {
  size: "1 minute",
  key: { entity: Schema.String },
  aggregate: { events: Agg.count, score: Agg.sum, highest: Agg.max }
})
const projection = Projection.make({
  name: "scores",
  version: 1,
  source,
  writes: [activity],
  handle: ({ entity, score }, out) => out.add(activity, { entity, events: 1, score, highest: score })
})
const application = Application.make({ name: "bench", projections: [Projection.async(projection)] })
const start = Date.UTC(2024, 0, 1)

const directory = mkdtempSync(join(tmpdir(), "millrace-bench-diff-"))
process.once("exit", () => rmSync(directory, { recursive: true, force: true }))
const main = Effect.gen(function* () {
  const database = yield* openDatabase(directory, "own")
  const system = yield* openSystem(application, database)
  const { sql } = database
  const run = (text: string) => query("bench", () => sql.unsafe(text))
  yield* transaction(sql, (tx) => createBuild(tx, projection, { partitionsOf: () => partitions, startOf: () => 0 }))
  yield* run(`insert into scores_v1.activity select 'e' || i % 10000, '1m', to_timestamp(1700000000 + i / 10000 * 60), i % 7, i % 100, i % 13
    from generate_series(0, ${rows - 1}) i`)
  // in another order, as a replay in other batches writes them
  yield* run("insert into scores_v2.activity select * from scores_v1.activity order by hashtext(entity), window_start")
  yield* run("analyze")
  yield* Effect.forkScoped(runProjections(system))
  let n = 0
  const record = (): NewRecord => {
    const entity = `e${n % 10_000}`
    const value = { type: "seen", id: String(n), entity, score: (n % 100) / 4, at: start + n * 10 }
    n++
    return {
      partition: partitionOf(entity, partitions),
      key: entity,
      value: JSON.stringify(value),
      eventTime: value.at,
      eventId: value.id,
      tenant: undefined,
      traceparent: undefined,
      schemaVersion: 1,
      headers: {}
    }
  }
  const feed = Effect.suspend(() =>
    system.log.append(source.name, Array.from({ length: Math.ceil(rate / 20) }, record))
  )
  if (rate > 0) yield* Effect.forkScoped(Effect.forever(Effect.andThen(feed, Effect.sleep(50))))
  yield* Effect.sleep(1_000)
  const [took, frozen]: [Array<number>, Array<number>] = [[], []]
  const context = { application, sql, log: system.log, on: "PostgreSQL" as const }
  for (let i = 0; i < times; i++) {
    const at = performance.now()
    const found = yield* Effect.scoped(diff(context, { name: "scores", samples: 5, exact: false, timeoutMs: 60_000 }))
    took.push(performance.now() - at)
    frozen.push(found.frozenMs)
    if (!found.equal) return yield* Effect.die(new Error("the builds differ"))
  }
  const shown = (of: ReadonlyArray<number>) => ({
    p50: Math.round(
      percentile(
        of.toSorted((a, b) => a - b),
        0.5
      )
    ),
    max: Math.round(Math.max(...of))
  })
  const figures = {
    rows,
    rate,
    diffMs: shown(took),
    frozenMs: shown(frozen),
    rssMb: Math.round(process.memoryUsage().rss / 2 ** 20)
  }
  process.stdout.write(`${JSON.stringify(figures)}\n`)
})
await Effect.runPromise(Effect.scoped(main))
process.exit()
