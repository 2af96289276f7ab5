// Watches whether the database keeps up and its disk has space, so that a gateway can refuse what could not be stored.
import { statfs } from "node:fs/promises"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { query } from "../postgres/client/client.ts"
import type { Database } from "./database.ts"

/** What is wrong now with the database. */
export interface DatabasePressure {
  /** For how long a query on the pool has waited for its answer, or has failed, in milliseconds; 0 if the last one was answered. */
  readonly behindMs: number
  /** The bytes that are free on the disk of the embedded database, if these are too few; undefined otherwise. */
  readonly freeBytes: number | undefined
}
/** How it is watched. */
export interface PressureOptions {
  /** The pause between two looks, in milliseconds. Default a second. */
  readonly everyMs?: number
  /** With fewer bytes the embedded database gets no more events. Default 64 MiB, four segments of its write-ahead log. */
  readonly leastBytes?: number
}

/**
 * Watches until the scope closes. The query takes its turn on the pool behind all others, so it waits also if the pool is saturated. Returns
 * the reading of what was found last.
 */
export const watchPressure = Effect.fnUntraced(function* (
  { embeddedDir, sql }: Pick<Database, "embeddedDir" | "sql">,
  { everyMs = 1_000, leastBytes = 64 << 20 }: PressureOptions = {}
): Effect.fn.Return<() => DatabasePressure, never, Scope.Scope> {
  let waitingSince: number | undefined
  let freeBytes: number | undefined
  const look = Effect.gen(function* () {
    waitingSince ??= performance.now()
    // after a lost connection the driver may never answer
    const answered = yield* query("look whether the database keeps up", () => sql`select 1`).pipe(
      Effect.timeout("30 seconds"),
      Effect.match({ onSuccess: () => true, onFailure: () => false })
    )
    if (answered) waitingSince = undefined
  })
  const lookAtDisk = Effect.promise(async () => {
    if (embeddedDir === undefined) return
    const found = await statfs(embeddedDir).catch(() => undefined)
    const free = found === undefined ? Infinity : found.bavail * found.bsize
    freeBytes = free < leastBytes ? free : undefined
  })
  yield* lookAtDisk
  for (const one of [look, lookAtDisk])
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(one, Effect.sleep(everyMs))))
  return () => ({ behindMs: waitingSince === undefined ? 0 : performance.now() - waitingSince, freeBytes })
})
