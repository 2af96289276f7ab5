// A projection over a log in memory and a new database, for tests of what it makes of a few values.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Log } from "../../src/log/log.ts"
import * as MemoryLog from "../../src/memory/log.ts"
import { query, type Sql } from "../../src/postgres/client/client.ts"
import * as PostgresStore from "../../src/postgres/store/store.ts"
import type { Projection } from "../../src/model/projection.ts"
import * as Runner from "../../src/runner/runner.ts"
import { Store } from "../../src/runner/store.ts"
import type { Topic } from "../../src/model/topic.ts"
import { recordOf, settled } from "./engine.ts"
import { databaseOn } from "./postgres.ts"

/** The parts of such an engine. */
export interface MemoryEngine {
  readonly sql: Sql
  readonly log: Log["Service"]
  readonly store: Store["Service"]
  readonly partitions: number
  /** Appends values to a topic, in one call. */
  readonly append: (topic: Topic.Any, values: ReadonlyArray<object>) => Effect.Effect<void, unknown>
  /** Runs the projection until it has processed everything or is halted. */
  readonly handle: Effect.Effect<void, unknown>
}

/** Creates the engine. `topics` are those that the projection reads; `wrap` may put something in front of the log. */
export const memoryEngine = Effect.fnUntraced(function* (
  root: string,
  projection: Projection.Any,
  topics: ReadonlyArray<Topic.Any>,
  options: { readonly partitions?: number; readonly wrap?: (log: Log["Service"]) => Log["Service"] } = {}
): Effect.fn.Return<MemoryEngine, unknown, Scope.Scope> {
  const { partitions = 1, wrap = (log: Log["Service"]) => log } = options
  const { sql } = yield* databaseOn(root, 6)
  const { log } = MemoryLog.make()
  for (const { compacted = false, name } of topics)
    yield* log.declare([{ name, partitions, compacted, retentionMs: undefined }])
  const store = PostgresStore.make(sql)
  yield* store.prepare([projection], () => partitions)
  const append = (topic: Topic.Any, values: ReadonlyArray<object>) =>
    Effect.asVoid(
      log.append(
        topic.name,
        values.map((value) => recordOf(topic, value, partitions))
      )
    )
  const handle = Effect.scoped(
    Effect.gen(function* () {
      yield* Effect.forkScoped(Runner.run(projection))
      yield* settled({ log, sql } as Parameters<typeof settled>[0])
    })
  ).pipe(Effect.provideService(Log, wrap(log)), Effect.provideService(Store, store))
  return { sql, log, store, partitions, append, handle: handle as Effect.Effect<void, unknown> }
})

/** The positions of dead letters with error and message, in order. */
export const parked = (sql: Sql) =>
  Effect.map(
    query(
      "read dead letters",
      () => sql<Array<{ position: number; error: string; message: string }>>`
        select position, error, message from millrace.dead_letters order by position`
    ),
    (rows) => rows.map(({ error, message, position }) => [position, error, message] as const)
  )
