// Records of lookup topics that cannot be read, with bytes that PostgreSQL refuses: each is a dead letter of every reader, and stops none.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as Scope from "effect/Scope"
import { Projection, ReadModel, Topic } from "../../../src/index.ts"
import { Log, type NewRecord } from "../../../src/log/log.ts"
import * as MemoryLog from "../../../src/memory/log.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import * as PostgresStore from "../../../src/postgres/store/store.ts"
import * as Runner from "../../../src/runner/runner.ts"
import { MemoryStore } from "../../../src/runner/memory-store.ts"
import { LookupTable, type ParkLookup } from "../../../src/runner/lookup-tables.ts"
import { Store } from "../../../src/runner/store.ts"
import { recordOf, settled, halts } from "../../support/engine.ts"
import { memoryEngine } from "../../support/memory-engine.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const one = { k: Schema.String, n: Schema.Finite }
/** A field whose schema throws what has neither a message nor a text. */
const Odd = Schema.String.pipe(
  Schema.decodeTo(Schema.String, {
    decode: SchemaGetter.transform((text: string) => {
      if (text !== "odd") return text
      const { proxy, revoke } = Proxy.revocable({}, {})
      revoke()
      throw proxy
    }),
    encode: SchemaGetter.transform((text: string) => text)
  })
)
const look = Topic.compacted("look", { value: { ...one, o: Schema.optionalKey(Odd) }, key: "k" })
const source = Topic.records("source", { value: one, key: "k" })
const projectionOf = (name: string) => {
  const rows = ReadModel.table(`${name}_rows`, { columns: { k: Schema.String, n: Schema.Finite }, primaryKey: ["k"] })
  return Projection.make({
    name,
    version: 1,
    source,
    enrich: { look: { topic: look, by: ({ k }: { readonly k: string }) => k } },
    writes: [rows],
    handle: ({ k }, out, { look: found }) => out.upsert(rows, { k, n: (found as { n: number } | undefined)?.n ?? -1 })
  }) as Projection.Any
}
const good = (k: string): NewRecord => recordOf(look, { k, n: 7 }, 1)
const bad = '{"k":"b","n":"bad"}'
const refused: Readonly<Record<string, Partial<NewRecord>>> = {
  "a NUL in the key": { key: "b\0" },
  "half of a surrogate pair in the key": { key: "\ud800" },
  "bytes that are not UTF-8 in the key": { key: "\udcff" },
  "bytes that are not UTF-8 in a header": { value: bad, headers: { x: "\udcff" } },
  "a NUL in a header": { value: bad, headers: { x: "a\0b" } },
  "a NUL in a header's name": { value: bad, headers: { "a\0b": "x" } },
  "a header called __proto__": { value: bad, headers: Object.fromEntries([["__proto__", "\0"]]) },
  "a NUL in the value": { value: "\0" },
  "bytes that are not UTF-8 in the value": { value: '"\udcff"' },
  "a NUL in the trace context": { value: bad, traceparent: "00-a\0b" },
  "a time that no date has": { value: bad, eventTime: 8_640_000_000_000_001 },
  "a time that is no number": { value: bad, eventTime: Number.NaN },
  "no key": { key: null },
  "a NUL in the tenant": { tenant: "\0" },
  "a long value": { value: `"${"x".repeat(2_000_000)}\0` },
  "a schema that throws what has no text": { value: '{"k":"b","n":1,"o":"odd"}' }
}
const letters = (sql: Sql, projection: string) =>
  query(
    "read",
    () =>
      sql<Array<{ position: number; key: string | null; value: string | null; headers: Record<string, string> }>>`
        select position, key, value, headers from millrace.dead_letters where projection = ${projection} order by position`
  )

describe("a record of a lookup topic that cannot be read", () => {
  it.live("with anything that PostgreSQL refuses is a dead letter of each reader, and events go on", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const projections = [projectionOf("p"), projectionOf("q")]
        const { sql } = yield* databaseOn(root, 6)
        const { log } = MemoryLog.make()
        for (const { name } of [look, source])
          yield* log.declare([{ name, partitions: 1, compacted: false, retentionMs: undefined }])
        const store = PostgresStore.make(sql)
        yield* store.prepare(projections, () => 1)
        const all = Object.values(refused).map((record) => Object.assign(good("b"), record))
        const given = [good("a"), ...all, good("c")]
        // a log refuses to append what is not JSON; other producers of a topic on Kafka do not ask
        yield* log.append(
          "look",
          given.map((record) => ({ ...record, value: "1", eventTime: 1 }))
        )
        const foreign: Log["Service"] = {
          ...log,
          read: (topic, ...where) =>
            Effect.map(log.read(topic, ...where), (batch) =>
              topic !== "look"
                ? batch
                : { ...batch, records: batch.records.map((record) => ({ ...record, ...given[record.position] })) }
            )
        }
        yield* log.append("source", [recordOf(source, { k: "a", n: 1 }, 1), recordOf(source, { k: "c", n: 1 }, 1)])
        const tables: Runner.LookupTables = new Map()
        // twice, as after a restart
        for (const lookupTables of [tables, new Map()]) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              for (const projection of projections)
                yield* Effect.forkScoped(Runner.run(projection as Projection.Of<never, never>, lookupTables))
              yield* settled({ log, sql } as Parameters<typeof settled>[0])
            })
          ).pipe(Effect.provideService(Log, foreign), Effect.provideService(Store, store))
        }
        assert.deepStrictEqual([...(yield* halts(sql))], [])
        const positions = Object.keys(refused).map((_, i) => i + 1)
        for (const { name } of projections) {
          const found = yield* letters(sql, name)
          assert.deepStrictEqual(
            found.map(({ position }) => position),
            positions,
            name
          )
          assert.deepStrictEqual([found[0]!.key, found[2]!.key], ['"b\\u0000"', '"\\udcff"'])
          assert.deepStrictEqual(found[5]!.headers, { '"a\\u0000b"': "x" })
          assert.strictEqual(found[7]!.value, '"\\u0000"')
        }
        const rows = yield* query(
          "rows",
          () => sql<Array<{ k: string; n: number }>>`select k, n from p_v1.p_rows order by k`
        )
        assert.deepStrictEqual(
          rows.map(({ k, n }) => [k, n]),
          [
            ["a", 7],
            ["c", 7]
          ]
        )
      })
    )
  )

  for (const [what, condition, kept] of [
    ["for its value", "new.value is not null", 1],
    ["in every form", "true", 0]
  ] as const)
    it.live(`and whose dead letter is refused ${what}, stops nothing`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const projection = projectionOf("p")
          const { handle, log, sql } = yield* memoryEngine(root, projection, [source, look])
          yield* query("refuse", () =>
            sql.unsafe(`create function refuse() returns trigger language plpgsql as $$
              begin if ${condition} then raise exception 'no' using errcode = '22P05'; end if; return new; end $$;
              create trigger refuse before insert on millrace.dead_letters for each row execute function refuse()`)
          )
          yield* log.append("look", [{ ...good("b"), value: bad }, good("a")])
          yield* log.append("source", [recordOf(source, { k: "a", n: 1 }, 1)])
          yield* handle
          assert.deepStrictEqual([...(yield* halts(sql))], [])
          assert.deepStrictEqual((yield* letters(sql, "p")).length, kept)
          const rows = yield* query("rows", () => sql<Array<{ n: number }>>`select n from p_v1.p_rows`)
          assert.deepStrictEqual(
            rows.map(({ n }) => n),
            [7]
          )
        })
      )
    )

  it.live("is the same dead letter in memory", () =>
    Effect.gen(function* () {
      const { log } = MemoryLog.make()
      yield* log.declare([{ name: "look", partitions: 1, compacted: false, retentionMs: undefined }])
      yield* log.append("look", [{ ...good("b"), key: "b\0", headers: { "a\0b": "\udcff" } }])
      const store = new MemoryStore(projectionOf("p"))
      const at = { projection: "p", version: 1, topic: "look", partition: 0 }
      const park: ParkLookup = (_, deadLetter) => store.service.park(at, deadLetter)
      const table = new LookupTable(log, look)
      table.addReader("p", park)
      yield* table.catchUp
      assert.deepStrictEqual(
        store.deadLetters.map(({ headers, key }) => [key, headers]),
        [['"b\\u0000"', { '"a\\u0000b"': '"\\udcff"' }]]
      )
    })
  )
})
