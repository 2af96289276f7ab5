// What a process tries again at the moment: for its readiness, and for the status, which explains with it why work waits.
import * as Context from "effect/Context"
import { storable } from "../text/text.ts"
import { maskSecrets } from "../text/secrets.ts"

/** Something that failed, is tried again, and has not succeeded since. */
export interface OngoingFailure {
  /** What failed, see `projectionSubject` and `relaySubject`. */
  readonly what: string
  /** The message of the last failure. */
  readonly reason: string
  /** How long ago the first failure in a row was, in milliseconds. */
  readonly sinceMs: number
}

/** A partition of a projection, as failures name it. */
export const projectionSubject = (at: {
  readonly projection: string
  readonly version: number
  readonly topic: string
  readonly partition?: number
}): string =>
  `projection ${at.projection}_v${at.version} ${at.topic}${at.partition === undefined ? "" : `/${at.partition}`}`
/** A relay, as failures name it. */
export const relaySubject = (target: string): string => `relay to ${target}`
/** The commands of an aggregate, as failures name them. */
export const commandsSubject = (aggregate: string): string => `commands of ${aggregate}`
/** Whether a failure is one of an aggregate's commands. */
export const isCommandsSubject = (what: string): boolean => what.startsWith(commandsSubject(""))
/** Streams of a relay that are halted, as failures name them. */
export const haltedStreamSubject = (target: string): string => `stream of the relay to ${target}`
/** Streams of a relay that wait for their target, as failures name them. */
export const waitingStreamSubject = (target: string): string => `waiting stream of the relay to ${target}`

/** A failure that was not repeated for so long is over, in milliseconds: everything is tried again more often. */
const repeatedMs = 30_000
/** How many failures are kept at most, and how long a reason may be. */
const most = 200
const mostReason = 500

interface Known {
  readonly reason: string
  readonly first: number
  readonly last: number
}

/** The failures of this process that are tried again, by what failed. Limited in number and size. Times are taken from a steady clock. */
export class OngoingFailures {
  private readonly known = new Map<string, Known>()
  private readonly now: () => number

  constructor(now: () => number = () => performance.now()) {
    this.now = now
  }

  /** Notes a failure. `repeatAfterMs`: when it is tried again at the latest, if that is later than some seconds from now. */
  readonly report = (what: string, reason: string, repeatAfterMs = 0): void => {
    const now = this.now()
    const before = this.current(what)
    if (before === undefined && this.known.size >= most) return
    // messages of errors often begin with what failed
    const shown = reason.startsWith(`${what}: `) ? reason.slice(what.length + 2) : reason
    this.known.set(what, {
      reason: storable(maskSecrets(shown).slice(0, mostReason).toWellFormed()),
      first: before?.first ?? now,
      last: now + repeatAfterMs
    })
  }
  /** Notes a success. */
  readonly clear = (what: string): void => void this.known.delete(what)
  /** What fails now, the longest first. */
  get list(): ReadonlyArray<OngoingFailure> {
    const now = this.now()
    const found = [...this.known.keys()].flatMap((what) => {
      const one = this.current(what)
      return one === undefined ? [] : [{ what, reason: one.reason, sinceMs: now - one.first }]
    })
    return found.toSorted((a, b) => b.sinceMs - a.sinceMs)
  }
  private current(what: string): Known | undefined {
    const one = this.known.get(what)
    if (one !== undefined && this.now() - one.last > repeatedMs) {
      this.known.delete(what)
      return undefined
    }
    return one
  }
}

/** The failures of the process. A system provides its own; without one they are kept and nobody reads them. */
export const CurrentFailures = Context.Reference<OngoingFailures>("millrace/CurrentFailures", {
  defaultValue: () => new OngoingFailures()
})
