// Pauses projections and lets them go on, for all processes of a system: their live builds keep their positions, also across restarts.
import * as Effect from "effect/Effect"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import { projectionNames } from "../postgres/store/identity.ts"
import { deletePause, isInline, readPauses, storePause } from "../postgres/store/pauses.ts"
import { adviceFor } from "../text/similar-names.ts"
import { PauseRefused } from "./errors.ts"

const assertKnown = Effect.fnUntraced(function* (sql: Sql, name: string) {
  const known = yield* projectionNames(sql)
  if (known.includes(name)) return
  return yield* new PauseRefused({
    message: `this database has no projection called '${name}'`,
    try: adviceFor(name, known) ?? "millrace migrate, or millrace dev"
  })
})

/**
 * Pauses a projection: each process ends the batch that it processes, and begins no other one. False if it was paused before. Fails with
 * `PauseRefused` if there is none of that name, or if it is inline.
 */
export const pauseProjection = Effect.fnUntraced(function* (
  sql: Sql,
  name: string
): Effect.fn.Return<boolean, SqlError | PauseRefused> {
  yield* assertKnown(sql, name)
  if (yield* isInline(sql, name))
    return yield* new PauseRefused({
      message: `projection ${name} is inline: its rows are written with the events of its aggregate, so pausing it would refuse every command`,
      try: `declare it as Projection.async(${name}), start that, and pause it then`
    })
  return yield* storePause(sql, name)
})

/** Lets a projection go on where it is. False if it was not paused. Fails with `PauseRefused` if there is none of that name. */
export const resumeProjection = Effect.fnUntraced(function* (
  sql: Sql,
  name: string
): Effect.fn.Return<boolean, SqlError | PauseRefused> {
  // one that was retired meanwhile must not stay paused
  const isResumed = yield* deletePause(sql, name)
  if (!isResumed) yield* assertKnown(sql, name)
  return isResumed
})

/** For how long what was read counts, in milliseconds: a batch that begins later reads it again. */
const freshMs = 500

/** Waits while a projection is paused. One reading serves all partitions of the process; while the database is away, what was read last counts. */
export const makePauseGate = (sql: Sql): ((projection: string) => Effect.Effect<void>) => {
  let paused: ReadonlySet<string> = new Set()
  let readAt = -Infinity
  const refresh = Effect.suspend(() => {
    // others that ask meanwhile take what was read before
    readAt = performance.now()
    return Effect.match(readPauses(sql), {
      onSuccess: (rows) => void (paused = new Set(rows.map(({ projection }) => projection))),
      onFailure: () => undefined
    })
  })
  return (projection) =>
    Effect.gen(function* () {
      while (true) {
        if (performance.now() - readAt > freshMs) yield* refresh
        if (!paused.has(projection)) return
        yield* Effect.sleep(freshMs)
      }
    })
}
