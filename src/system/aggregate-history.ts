// At the start of a system: refuses declarations of aggregates that cannot read the events that are stored, by a sample of them.
import * as Effect from "effect/Effect"
import { type EventSample, historyProblem } from "../aggregate/event-history.ts"
import { aggregatesOf, type Application } from "../model/application.ts"
import type { Log, LogRecord } from "../log/log.ts"
import { UnreadableHistory } from "./errors.ts"

/** How many records are read at the end of each partition. */
const newest = 100
/** How many samples of each version of each event type are decoded for an aggregate. */
const mostOfAKind = 10

/** The samples of records, so many of each kind at most. `counts` has those that were taken before. */
const samplesOf = (records: ReadonlyArray<LogRecord>, counts: Map<string, number>): ReadonlyArray<EventSample> =>
  records.flatMap(({ schemaVersion, value }) => {
    if (value === null) return []
    const { type } = JSON.parse(value) as { readonly type: string }
    const kind = `${schemaVersion ?? 1} ${type}`
    const count = counts.get(kind) ?? 0
    counts.set(kind, count + 1)
    return count < mostOfAKind ? [{ type, schemaVersion, value }] : []
  })

/**
 * Fails with `UnreadableHistory`, which names the event types, if an aggregate's declarations cannot read the first and the last events of
 * its partitions.
 */
export const assertHistory = Effect.fnUntraced(function* (application: Application.Any, log: Log["Service"]) {
  for (const aggregate of aggregatesOf(application)) {
    const { name } = aggregate
    const ends = yield* log.ends(name)
    const counts = new Map<string, number>()
    const reads = ends.flatMap((end, partition) =>
      end === 0
        ? []
        : end <= newest
          ? [{ partition, from: 0 }]
          : [
              { partition, from: 0 },
              { partition, from: end - newest }
            ]
    )
    const samples = yield* Effect.forEach(
      reads,
      ({ from, partition }) => Effect.map(log.read(name, partition, from), ({ records }) => samplesOf(records, counts)),
      { concurrency: 4 }
    )
    const problem = historyProblem(aggregate, samples.flat())
    if (problem !== undefined) return yield* new UnreadableHistory({ message: problem.message, try: problem.advice })
  }
})
