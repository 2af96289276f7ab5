// Replays that only look, as those of explain: they change nothing of what is stored of lookup values, whatever is appended meanwhile.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Topic } from "../../../src/index.ts"
import { specOf } from "../../../src/log/log.ts"
import type { Projection } from "../../../src/model/projection.ts"
import { query } from "../../../src/postgres/client/client.ts"
import * as PostgresLog from "../../../src/postgres/log/log.ts"
import * as Lookups from "../../../src/postgres/store/lookups.ts"
import { LookupTable } from "../../../src/runner/lookup-tables.ts"
import { readLookups } from "../../../src/system/explain.ts"
import { record } from "../../contract/log-support.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const prices = Topic.compacted("prices", {
  value: { article: Schema.String, cents: Schema.Int },
  key: "article",
  partitions: 1
})

it.live("lookup tables of a replay end where the topic ended when it began, and store nothing", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { sql } = yield* databaseOn(yield* server, 4)
      const { log } = yield* PostgresLog.make(sql)
      yield* log.declare([specOf(prices as never, 1)])
      const put = (article: string, cents: number) =>
        log.append("prices", [
          record({ key: article, value: JSON.stringify({ article, cents }), eventTime: 1, schemaVersion: 1 })
        ])
      const stored = () =>
        query(
          "read what is stored",
          () =>
            sql<
              Array<object>
            >`select topic, partition, generation, identity, next_position, scattered from millrace.lookup_read`
        ).pipe(Effect.map((rows) => rows.map((row) => ({ ...row }))))
      yield* put("a", 1)
      yield* put("b", 2)
      const live = new LookupTable(log, prices as never, Lookups.make(sql))
      yield* live.catchUp
      const before = yield* stored()
      assert.deepInclude(before[0] as object, { generation: 1, next_position: 2 })

      // a value comes between the look at the topic's end and the read
      const growing = { ...log, bounds: (topic: string) => Effect.tap(log.bounds(topic), () => put("c", 3)) }
      const projection = { enrich: { price: { topic: prices } } } as unknown as Projection.Any
      const tables = yield* readLookups(growing as typeof log, projection, Lookups.readOnly(sql, 1))
      const replayed = tables.get("prices")!
      assert.deepStrictEqual([replayed.get("b"), replayed.get("c")], [{ article: "b", cents: 2 }, undefined])
      yield* replayed.catchUp
      yield* replayed.catchUp
      assert.deepStrictEqual(replayed.pin, { generation: 1, positions: [2] })
      assert.deepStrictEqual(yield* stored(), before)

      // also where the topic seems to be another one
      const readOnly = Lookups.readOnly(sql, 1)
      assert.deepStrictEqual(yield* readOnly.open("prices", 2, "another", false), {
        generation: 2,
        next: [0, 0],
        isScattered: false,
        deletedAt: undefined
      })
      assert.deepInclude(yield* readOnly.open("prices", 1, undefined, true), { generation: 2, next: [0] })
      assert.deepInclude(yield* readOnly.open("prices", 1, undefined, false), { generation: 1, next: [2] })
      assert.deepInclude(yield* readOnly.open("unknown", 1, undefined, false), { generation: 1, next: [0] })
      assert.deepStrictEqual(yield* stored(), before)
      // the process that stores goes on
      yield* live.catchUp
      assert.deepStrictEqual(
        [live.pin, live.get("c")],
        [
          { generation: 1, positions: [3] },
          { article: "c", cents: 3 }
        ]
      )
    })
  )
)
