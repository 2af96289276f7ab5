// Moves live builds to the lifecycles that the code wants, while the system runs and without losing or doubling an event.
import * as Effect from "effect/Effect"
import type { Sql } from "../postgres/client/client.ts"
import { type LifecycleMove, moveLifecycle, type NotMoved, readMoves } from "../postgres/store/lifecycles.ts"

/** How long appends wait at most until a runner has processed what was appended before a move, in milliseconds. */
const drainMs = 1_000
/** The wait between attempts, which grows because each may hold appends up, in milliseconds. */
const waits = { leastMs: 500, mostMs: 30_000 }

const what = ({ build, name, to }: LifecycleMove) =>
  `projection ${name}: build ${build} ${to === "inline" ? "does not become inline" : "does not become async"} yet`
const advice: Partial<Record<NotMoved, string>> = {
  "dead letters": "it has dead letters, which nothing could retry afterwards: retry or discard them with millrace dlq",
  halted: "it is halted: see millrace status",
  behind: "it has not processed all events yet"
}

/** Makes the moves that can be made now. Returns why the others cannot, by the move's text. */
export const moveOnce = Effect.fnUntraced(function* (sql: Sql) {
  const waiting = new Map<string, string>()
  for (const move of yield* readMoves(sql)) {
    const result = yield* moveLifecycle(sql, move, drainMs)
    if (result === "done")
      yield* Effect.logInfo(
        `projection ${move.name}: build ${move.build} is ${move.to === "inline" ? "inline: appends write its rows" : "async: its runner goes on where appends stopped"}`
      )
    else if (result !== "done before") waiting.set(what(move), advice[result] ?? `it is ${result}`)
  }
  return waiting
})

/** Makes moves whenever the code wants one, until interrupted. A reason why one is not made is logged once. */
export const moveLifecycles = Effect.fnUntraced(function* (sql: Sql): Effect.fn.Return<never> {
  let ms = waits.leastMs
  const logged = new Map<string, string>()
  while (true) {
    const waiting = yield* Effect.orElseSucceed(moveOnce(sql), () => undefined)
    for (const [text, reason] of waiting ?? [])
      if (logged.get(text) !== reason) yield* Effect.logInfo(`${text}: ${reason}`)
    logged.clear()
    for (const [text, reason] of waiting ?? []) logged.set(text, reason)
    ms = waiting?.size === 0 ? waits.leastMs : Math.min(waits.mostMs, ms * 1.5)
    yield* Effect.sleep(ms)
  }
})
