// The outbox on PostgreSQL, for relays that bring it elsewhere, and what they share with the one that copies it within the server.
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

/** The channel that is notified after a commit which published something. */
export const outboxChannel = "millrace_outbox"

/** Listens for commits until the scope closes. */
export const signalsOf = Effect.fnUntraced(function* (
  sql: Sql,
  target: string
): Effect.fn.Return<CommitSignals, RelayError, Scope.Scope> {
  const run = queryFor(target)
  const signs = yield* Queue.sliding<void>(1)
  const signal = () => void Queue.offerUnsafe(signs, undefined)
  yield* Effect.acquireRelease(
    // called again after a reconnect: what was notified meanwhile is lost
    run("listen", () => sql.listen(outboxChannel, signal, signal)),
    ({ unlisten }) => Effect.ignore(run("listen", unlisten))
  )
  return { wait: Queue.take(signs), signal }
})

/** The port over a pool. */
export const make = (sql: Sql): Outbox["Service"] =>
  Outbox.of({
    streams: (target) =>
      queryFor(target)("publish", async () => {
        await Statement.begin(sql, target)
        return Statement.positions(sql, target)
      }),
    read: (target, places, bounds, pass) =>
      queryFor(target)("publish", () => Statement.read(sql, places, bounds, pass)),
    move: (target, places) => Effect.asVoid(queryFor(target)("publish", () => Statement.move(sql, target, places))),
    topicPosition: (target, begin) => queryFor(target)("publish", () => Statement.topicPlace(sql, target, begin)),
    keep: (target, places, parked) => queryFor(target)("publish", () => Statement.keep(sql, target, places, parked)),
    park: (target, parking) => queryFor(target)("publish", () => Statement.park(sql, target, parking)),
    halt: (target, halts) => Effect.asVoid(queryFor(target)("publish", () => Statement.halt(sql, target, halts))),
    lag: (target) => queryFor(target)("lag", () => Statement.lag(sql, target)),
    signals: (target) => signalsOf(sql, target),
    lanes: (target, lanes, idOf) => lanesOf(sql, target, lanes, idOf)
  })

/** The port as a layer. */
export const layer = (sql: Sql): Layer.Layer<Outbox> => Layer.succeed(Outbox, make(sql))
