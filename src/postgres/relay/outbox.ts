// The outbox on PostgreSQL, for relays to Kafka and Pulsar, and the signals of commits, which the relay to the log uses too.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { Outbox, type CommitSignals } from "../../relay/outbox.ts"
import type { RelayError } from "../../relay/target.ts"
import type { Sql } from "../client/client.ts"
import { lanesOf } from "./lanes.ts"
import * as Statement from "./outbox-sql.ts"
import { queryFor } from "./outbox-sql.ts"

/** The channel of notifications after commits that published something. */
export const outboxChannel = "millrace_outbox"

/** Listens for commits until the scope closes. */
export const signalsOf = Effect.fnUntraced(function* (
  sql: Sql,
  target: string
): Effect.fn.Return<CommitSignals, RelayError, Scope.Scope> {
  const run = queryFor(target)
  const signals = yield* Queue.sliding<void>(1)
  const signal = () => void Queue.offerUnsafe(signals, undefined)
  yield* Effect.acquireRelease(
    // also called after a reconnect, because notifications in between are lost
    run("listen", () => sql.listen(outboxChannel, signal, signal)),
    ({ unlisten }) => Effect.ignore(run("listen", unlisten))
  )
  return { wait: Queue.take(signals), signal }
})

/** The outbox over a pool of connections. */
export const make = (sql: Sql): Outbox["Service"] =>
  Outbox.of({
    streams: (target) =>
      queryFor(target)("publish", async () => {
        await Statement.startStreams(sql, target)
        return Statement.positions(sql, target)
      }),
    read: (target, positions, limits, skip) =>
      queryFor(target)("publish", () => Statement.read(sql, positions, limits, skip)),
    move: (target, positions) =>
      Effect.asVoid(queryFor(target)("publish", () => Statement.move(sql, target, positions))),
    topicPosition: (target, begin) => queryFor(target)("publish", () => Statement.topicPosition(sql, target, begin)),
    keep: (target, positions, parked) =>
      queryFor(target)("publish", () => Statement.keep(sql, target, positions, parked)),
    park: (target, parking) => queryFor(target)("publish", () => Statement.park(sql, target, parking)),
    halt: (target, halts) => Effect.asVoid(queryFor(target)("publish", () => Statement.halt(sql, target, halts))),
    lag: (target) => queryFor(target)("lag", () => Statement.lag(sql, target)),
    signals: (target) => signalsOf(sql, target),
    lanes: (target, lanes, idOf) => lanesOf(sql, target, lanes, idOf)
  })

/** The outbox as a layer. */
export const layer = (sql: Sql): Layer.Layer<Outbox> => Layer.succeed(Outbox, make(sql))
