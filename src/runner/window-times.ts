// The times that messages of windows announce. Pure.
import { timeText } from "../log/time-mark.ts"
import type { Row } from "../model/recorder.ts"
import type { Topic } from "../model/topic.ts"
import type { MessageTimes, SendingEvent } from "./segments.ts"
import type { WindowChange, WindowDelta } from "./store.ts"

/** A window's changed row of a batch, its message, and the last event that contributed to it. */
export interface ChangedRow {
  readonly topic: Topic.Any
  readonly delta: WindowDelta
  readonly event: SendingEvent
}

/** The event time that a window's topic declares for a row, as far as what the batch contributes shows it. */
const declaredTime = ({ timeOf }: Topic.Any, row: Row): number | undefined => {
  try {
    const time = timeOf?.(row)
    return Number.isFinite(time) ? time : undefined
  } catch {
    return undefined
  }
}

/**
 * The changes of windows with the header `millrace-time` on messages that need it. Messages are in the order of their keys, not of their
 * events, so all of a topic announce no more than the earliest of them: else a reader would find the others late. `published`: their rows.
 */
export const withTimes = (
  changes: ReadonlyArray<WindowChange>,
  published: ReadonlyArray<ChangedRow>,
  times: MessageTimes
): ReadonlyArray<WindowChange> => {
  const timed = published
    .filter(({ topic }) => times.isAnnounced(topic.name))
    .map(({ delta, event, topic }) => ({
      delta,
      event,
      topic,
      time: declaredTime(topic, delta.row) ?? delta.eventTime
    }))
  const least = new Map<string, number>()
  for (const { event, time, topic } of timed) {
    const told = Math.min(time, event.reached ?? -Infinity)
    least.set(topic.name, Math.min(least.get(topic.name) ?? Infinity, told))
  }
  const headers = new Map<WindowDelta, string>()
  for (const { delta, event, time, topic } of timed) {
    const told = least.get(topic.name)!
    const reached = told === -Infinity ? undefined : told
    times.sentByWindow(topic.name, delta.partition, time, { eventTime: event.eventTime, reached })
    if (time !== reached) headers.set(delta, timeText(reached))
  }
  if (headers.size === 0) return changes
  return changes.map(({ deltas, window }) => ({
    window,
    deltas: deltas.map((delta) => {
      const sentTime = headers.get(delta)
      return sentTime === undefined ? delta : { ...delta, sentTime }
    })
  }))
}
