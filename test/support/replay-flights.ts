// January's flights, processed live and by a second build from the start of the log.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { features, rawEvents, signals } from "../../projections/signals.ts"
import { topicsOf } from "../../src/model/application.ts"
import type { Projection } from "../../src/model/projection.ts"
import { query, transaction } from "../../src/postgres/client/client.ts"
import { createBuild } from "../../src/postgres/store/builds.ts"
import { relationsOf } from "../../src/postgres/store/ddl.ts"
import { append, type Engine, run, settled } from "./engine.ts"
import { flights, january, planes } from "./oracle.ts"

/** Weights that are multiples of 1/4: scores are then, too, and their sums are exact in whatever order they are added. */
const known = (more: number) =>
  planes().map((line) => {
    const plane: { readonly risk_weight: number } = JSON.parse(line)
    return features.decode({ ...plane, risk_weight: Math.round(plane.risk_weight * 4 + more) / 4 })
  })

/** The rows of a build's tables as one text of PostgreSQL's for each, in order, and its late events. */
const rowsOf = Effect.fnUntraced(function* ({ sql }: Engine, build: Projection.Any) {
  const texts: Record<string, string> = {}
  const read = Effect.fnUntraced(function* (name: string, from: string) {
    const [row] = yield* query(`read ${name}`, () =>
      sql.unsafe<Array<{ n: number; digest: string }>>(
        `select count(*) as n, md5(string_agg(line, e'\\n' order by line collate "C")) as digest from (${from}) t`
      )
    )
    texts[name] = `${row!.n} rows, ${row!.digest}`
  })
  for (const { name, qualifiedName } of relationsOf(build))
    yield* read(name, `select t::text as line from ${qualifiedName} t`)
  yield* read(
    "late events",
    `select concat_ws('|', topic, partition, position, window_name, window_size, window_start, key, contribution, event_time, stream_time, trace_id) as line
     from millrace.late_events where version = ${build.version}`
  )
  return texts
})

/**
 * Processes January's flights, with lookups that change in the middle, and then rebuilds the projection. Asserts that both builds have the same
 * rows, byte for byte. The engine is one of the application of the commands.
 */
export const replayFlights = Effect.fnUntraced(function* (on: Engine) {
  const events = flights().map((line) => rawEvents.decode(JSON.parse(line)))
  yield* append(on, features, known(0))
  const stop = yield* run(on)
  for (let i = 0; i < events.length; i += 4_000) {
    yield* append(on, rawEvents, events.slice(i, i + 4_000))
    if (i === 12_000) yield* append(on, features, known(1))
  }
  yield* settled(on, 60_000)
  yield* stop
  const topics = topicsOf({ ...on.application, services: undefined } as never)
  const partitionsOf = (name: string) => topics.find(({ topic }) => topic.name === name)!.partitions
  const build = yield* transaction(on.sql, (tx) =>
    createBuild(tx, signals as Projection.Any, { partitionsOf, startOf: () => 0 })
  )
  const stopBuild = yield* run({ ...on, application: { ...on.application, projections: [{ projection: build }] } })
  yield* settled(on, 60_000)
  yield* stopBuild
  const live = yield* rowsOf(on, signals as Projection.Any)
  assert.isTrue(live["entity_activity"]!.startsWith(`${january.windows} rows`), live["entity_activity"])
  assert.isTrue(live["late events"]!.startsWith(`${january.late} rows`), live["late events"])
  assert.deepStrictEqual(yield* rowsOf(on, build), live)
})
