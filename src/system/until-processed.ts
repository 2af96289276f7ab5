// Waits until a system has processed what its log has now.
import * as Effect from "effect/Effect"
import { SystemHalted } from "./errors.ts"
import { readStatus } from "./observed.ts"
import type { System } from "./system.ts"

/** How often the status is read, in milliseconds. */
const pollMs = 15

/**
 * Waits until the projections have processed everything that the log has at the time of the call, and the relays have published the results.
 * Fails with `SystemHalted` if a projection or a relay is halted.
 */
export const untilProcessed = Effect.fnUntraced(function* (system: System) {
  const topics = new Set((yield* readStatus(system)).projections.map(({ topic }) => topic))
  const ends = new Map<string, number>()
  for (const topic of topics)
    for (const { end, partition } of yield* system.log.bounds(topic)) ends.set(`${topic}/${partition}`, end)
  while (true) {
    const { projections, relays } = yield* readStatus(system)
    const partition = projections.find(({ halted }) => halted !== null)
    if (partition !== undefined) {
      const place = `${partition.topic}/${partition.partition}`
      return yield* new SystemHalted({
        message: `projection ${partition.name} is halted at ${place}: ${partition.halted}`
      })
    }
    const relay = relays.find(({ halted }) => halted !== null)
    if (relay !== undefined)
      return yield* new SystemHalted({ message: `the relay to ${relay.target} is halted: ${relay.halted}` })
    const isBehind = projections.some(
      ({ partition, position, topic }) => position < (ends.get(`${topic}/${partition}`) ?? 0)
    )
    if (!isBehind && relays.every(({ lag }) => lag === 0)) return
    yield* Effect.sleep(pollMs)
  }
})
