// The failure policy of a projection: what happens to an event whose handler fails.
import * as Schedule from "effect/Schedule"
import { checkedChoice, invalidOption } from "./options.ts"

/**
 * What happens to an event whose handler fails. By default it is parked as a dead letter at once, and later events go on.
 *
 * ```ts
 * const failure: FailurePolicy = { retry: Schedule.recurs(5), then: "park", order: "key" }
 * ```
 */
export interface FailurePolicy {
  /**
   * How often, and how far apart, a handler that returns an Effect is run again after a failure. The schedule's input is the handler's
   * error, so that `Schedule.while` may depend on its `_tag`. A plain handler is not retried: it would fail the same way. Default: no retry.
   */
  readonly retry?: Schedule.Schedule<unknown, unknown>
  /**
   * What happens once the retries are used up. `park` (default) keeps the event as a dead letter with its error, value and position;
   * `skip` records that it was skipped; `stop` stops the partition at this event.
   */
  readonly then?: "park" | "skip" | "stop"
  /**
   * `key`: while an event is parked, later events of its key are parked too. They are processed in order after the first one was
   * retried, or discarded with it. Costs one query a batch. Default: later events of the key are processed at once.
   */
  readonly order?: "key"
  /**
   * How many events of a partition may fail one after another for the same reason: the next one halts the partition, before it and with the
   * first cause, so that a projection that cannot work does not park its whole log. The same reason is the same error with a message that
   * differs in values only. Until any event of the partition has succeeded, failures for different reasons count together. A success starts
   * the count over; retries of dead letters do not count. Default 1,000; `Infinity` parks all.
   */
  readonly haltAfter?: number
  /**
   * The topic that parked events are also published to, exactly once, for subscribers. Default `<source>.<projection>.dlq`; `false`
   * publishes them nowhere. A topic that is named here has one partition, and several projections may share it. Unreadable records of a
   * lookup topic are parked outside of any batch, so they are in `millrace.dead_letters` only.
   */
  readonly deadLetterTopic?: string | false
}

/** Throws `InvalidOption` or an `Error` if a projection's policy makes no sense. */
export const assertFailurePolicy = (name: string, failure: FailurePolicy): void => {
  checkedChoice(`projection ${name}: failure.then`, failure.then ?? "park", ["park", "skip", "stop"])
  if (failure.order !== undefined) checkedChoice(`projection ${name}: failure.order`, failure.order, ["key"])
  if (failure.retry !== undefined && !Schedule.isSchedule(failure.retry))
    throw invalidOption(`projection ${name}: failure.retry`, failure.retry, "use a Schedule, as `Schedule.recurs(5)`")
  if (failure.order !== undefined && (failure.then ?? "park") !== "park") {
    throw new Error(`projection ${name}: \`order: "key"\` needs \`then: "park"\`; remove one of the two`)
  }
  const { haltAfter = 1 } = failure
  if (!(haltAfter === Infinity || (Number.isSafeInteger(haltAfter) && haltAfter >= 1)))
    throw invalidOption(
      `projection ${name}: failure.haltAfter`,
      haltAfter,
      "it must be a whole number, at least 1, or Infinity"
    )
}
