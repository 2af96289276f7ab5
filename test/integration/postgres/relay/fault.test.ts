// Several relays to the log while database backends die: every message is copied once and in order.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { connect, query, type Sql } from "../../../../src/postgres/client/client.ts"
import { pack } from "../../../../src/postgres/log/batch-codec.ts"
import * as PostgresRelay from "../../../../src/postgres/relay/to-log.ts"
import * as Relay from "../../../../src/relay/relay.ts"
import { declare, incarnation, positions, recordsOf, sequences, topicOf, upTo } from "../../../support/outbox.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

// logs of backends that die are expected
const quietly = Effect.provideService(References.MinimumLogLevel, "Error")

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const test = (
  name: string,
  body: (sql: Sql, url: string) => Effect.Effect<void, unknown, Scope.Scope>,
  timeout?: number
) =>
  it.live(
    name,
    () => quietly(Effect.scoped(Effect.flatMap(databaseOn(root), ({ sql, url }) => body(sql, url)))),
    timeout
  )

describe("relay to the log on PostgreSQL, under faults", () => {
  test(
    "several relays, appenders and dying backends copy messages 1..n once and in order",
    Effect.fnUntraced(function* (sql, url) {
      const partitions = 4
      for (const topic of ["alerts", "scores"]) yield* declare(sql, topic, partitions)
      yield* query(
        "progress",
        () =>
          sql`insert into millrace.projection (name, version, declared, definition) values ('p', 1, 1, ''), ('q', 1, 1, '')`
      )
      yield* query(
        "progress",
        () => sql`
      insert into millrace.progress (projection, version, topic, partition, mode)
      select p, 1, 'events', n, 'live' from unnest('{p,q}'::text[]) p, generate_series(0, ${partitions - 1}::integer) n`
      )

      const killed: Array<number> = []
      const commit = Effect.fnUntraced(function* (writer: Sql, projection: string, partition: number) {
        let seq = 0
        while (killed.length < 100) {
          const messages = 1 + Math.floor(Math.random() * 20)
          const { meta, vals } = pack(recordsOf(projection, partition, seq + 1, messages))
          const target = Math.random() < 0.5 ? "alerts" : "scores"
          const to = Math.random() < 0.1 ? null : partition
          yield* query(
            "commit",
            () => writer`
          with fence as (
            update millrace.progress set outbox_seq = outbox_seq + ${messages}
            where projection = ${projection} and partition = ${partition} returning outbox_seq
          )
          insert into millrace.outbox
            (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
          select ${projection}, 'events', ${partition}, outbox_seq - ${messages} + 1, ${messages}, ${incarnation}, ${target}, ${to}::integer, ${meta}, ${vals}
          from fence`
          )
          seq += messages
          yield* Effect.sleep(Math.random() * 8)
          if (Math.random() < 0.2) yield* query("notify", () => writer`select pg_notify('millrace_outbox', '')`)
        }
        return [`${projection}/events/${partition}`, seq] as const
      })
      const relays = []
      for (const n of [1, 2, 3]) {
        const client = yield* connect(url, { applicationName: `relay ${n}`, max: 2 })
        const target = yield* PostgresRelay.make(client, { segments: 5 })
        relays.push(yield* Effect.forkScoped(Relay.run(target, { pollMs: 20 })))
      }
      const killer = yield* Effect.forkScoped(
        Effect.forever(
          Effect.gen(function* () {
            yield* Effect.sleep(Math.random() * 30)
            const rows = yield* query(
              "terminate",
              () => sql`
            select pid, pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name like 'relay%' and (state = 'active' or random() < 0.05)
            limit 1`
            )
            for (const row of rows) killed.push(row["pid"] as number)
          })
        )
      )
      const writer = yield* connect(url, { max: 8 })
      const streams = ["p", "q"].flatMap((projection) =>
        Array.from({ length: partitions }, (_, n) => [projection, n] as const)
      )
      const writers = yield* Effect.forkScoped(
        Effect.all(
          streams.map(([projection, partition]) => commit(writer, projection, partition)),
          { concurrency: "unbounded" }
        )
      )
      const expected = Object.fromEntries(yield* Fiber.join(writers))
      yield* Fiber.interrupt(killer)
      const target = yield* PostgresRelay.make(sql)
      while ((yield* target.lag).some(({ lag }) => lag > 0)) yield* Effect.sleep(50)
      const records = [...(yield* topicOf(sql, "alerts")), ...(yield* topicOf(sql, "scores"))]
      const found = sequences(records)
      for (const [stream, n] of Object.entries(expected))
        assert.deepStrictEqual(
          found[stream]!.toSorted((a, b) => a - b),
          upTo(n),
          stream
        )
      // within a topic and partition, each stream's messages keep their order
      const last = new Map<string, number>()
      for (const topic of ["alerts", "scores"]) {
        for (const { partition, seq, stream } of yield* topicOf(sql, topic)) {
          const place = `${topic}/${partition}/${stream}`
          assert.isAbove(seq, last.get(place) ?? 0)
          last.set(place, seq)
        }
      }
      assert.deepStrictEqual(
        (yield* positions(sql)).filter(({ halted }) => halted !== null),
        []
      )
    }),
    60_000
  )
})
