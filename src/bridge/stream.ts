// What streams of both directions share: what they are given, how they bear failures, and how positions are written. It moves no record.
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { Bridge } from "./rules.ts"
import { BridgeError } from "./errors.ts"
import type { KafkaSide } from "./kafka-side.ts"
import type { PulsarSide } from "./pulsar-side.ts"
import { type PulsarPosition, formatPosition } from "./pulsar-position.ts"
import type { Availability } from "./availability.ts"
import type { Board, StreamState } from "./status.ts"
import type { Log, ReadError } from "../log/log.ts"

/** A bridge, and the two systems that it joins. */
export interface BridgeContext {
  readonly bridge: Bridge
  readonly log: Log["Service"]
  readonly kafka: KafkaSide
  readonly pulsar: PulsarSide
  /** How the origin header names the two. */
  readonly clusters: { readonly kafka: string; readonly pulsar: string }
  readonly board: Board
  readonly presence: Availability
}
/** Everything that a stream can fail with. */
export type StreamError = BridgeError | ReadError

/** Reads of a log as failures of the bridge. */
export const readFailure = (error: ReadError): BridgeError =>
  new BridgeError({
    side: "kafka",
    operation: "read",
    kind: error._tag === "OutOfRange" ? "lost" : error._tag === "UnknownTopic" ? "refused" : "other",
    topic: error.topic,
    retryable: error._tag === "LogError" && error.retryable,
    reason: error.message,
    cause: error
  })
/** Records are gone, or others stand in their place: a person must look. */
export const lostBecause = (side: BridgeError["side"], topic: string, reason: string): BridgeError =>
  new BridgeError({
    side,
    operation: "go on",
    kind: "lost",
    topic,
    retryable: false,
    reason: `${reason}. Say \`lost: "continue"\` in the rule to go on with what there is`
  })

const restMs = (failures: number) => Math.min(100 * 2 ** failures, 10_000)
/** A session that ran so long has nothing to do with the failure before. */
const soundMs = 30_000
/** How often it is asked how far behind a stream is. */
const lagMs = 1_000
/** What is to be done once is given up after so long without a success. */
const onceMs = 30_000

/** How a stream bears failures. */
export interface Bearing {
  /** It ends with a failure that waiting does not mend, or did not mend for half a minute. */
  readonly once: boolean
  /** Whether the next session knows better than the one that failed, and need not wait. Asked once a failure. */
  readonly learned?: () => boolean
  /** How far behind it is, whether a session runs or none can; undefined: not to be told now. */
  readonly lag: Effect.Effect<number | undefined>
}
/**
 * Runs sessions until one ends well: after a failure another one begins, from what was committed. For ever, with a pause that grows to
 * 10 s and ends when a system is back that was away. Tells meanwhile how far behind the stream is.
 */
export const persist = <E extends StreamError>(
  { presence }: Pick<BridgeContext, "presence">,
  state: StreamState,
  session: Effect.Effect<void, E, Scope.Scope>,
  bearing: Bearing
): Effect.Effect<void, E> => {
  const telling = bearing.lag.pipe(
    Effect.flatMap((lag) => (lag === undefined ? Effect.void : state.behind(lag))),
    Effect.andThen(Effect.sync(() => state.rests())),
    Effect.andThen(Effect.sleep(lagMs)),
    Effect.forever
  )
  return Effect.raceFirst(sessions(presence, state, session, bearing), telling).pipe(
    Effect.onInterrupt(() => state.left())
  )
}
const sessions = Effect.fnUntraced(function* <E extends StreamError>(
  presence: Availability,
  state: StreamState,
  session: Effect.Effect<void, E, Scope.Scope>,
  { learned = () => false, once }: Bearing
): Effect.fn.Return<void, E> {
  let since = 0
  for (let failures = 0; ;) {
    const begun = yield* Clock.currentTimeMillis
    const exit = yield* Effect.exit(Effect.scoped(session))
    state.waits = undefined
    if (Exit.isSuccess(exit)) return
    const error = Cause.findErrorOption(exit.cause)
    // interrupted, or a mistake of this program
    if (error._tag === "None") return yield* exit
    if (learned()) continue
    const { message } = error.value
    const retryable = "retryable" in error.value && error.value.retryable === true
    const now = yield* Clock.currentTimeMillis
    if (state.failing === undefined) since = now
    if (once && (!retryable || now - since > onceMs)) return yield* exit
    yield* state.failed()
    if (now - begun > soundMs) failures = 0
    const name = `bridge: ${state.name}`
    const isNews = state.stuck(message, retryable)
    if (isNews && !retryable) yield* Effect.logError(`${name} halted: ${message}`)
    // that a system is away was said once, for all streams
    else if (isNews && presence.away.length === 0) yield* Effect.logWarning(`${name}: ${message}; trying again`)
    yield* presence.rest(restMs(failures++))
  }
})

/** 8 hex digits for a name: a short one for where many stand together. */
export const shortName = (name: string): string => {
  let hash = 0x811c9dc5
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, "0")
}
/** Kafka takes 4,096 bytes of metadata: so many places fit with ease. A part whose place is not kept is read from its beginning. */
const placesKept = 64

/** Places by part as metadata; the last of them, where they are many. */
export const placesText = (places: ReadonlyMap<string, PulsarPosition>): Record<string, string> =>
  Object.fromEntries([...places].slice(-placesKept).map(([part, place]) => [shortName(part), formatPosition(place)]))

/** Metadata that this bridge wrote; nothing where it is none. */
export const parseMetadata = (text: string): Readonly<Record<string, unknown>> => {
  try {
    const found = JSON.parse(text) as unknown
    return typeof found === "object" && found !== null ? (found as Readonly<Record<string, unknown>>) : {}
  } catch {
    return {}
  }
}

/** A set of whole numbers from 0, a bit for each, in chunks where there are some. */
export class Offsets {
  private readonly chunks = new Map<number, Uint8Array>()
  has(offset: number): boolean {
    const chunk = this.chunks.get(Math.floor(offset / 65_536))
    return chunk !== undefined && (chunk[(offset % 65_536) >> 3]! & (1 << (offset & 7))) !== 0
  }
  add(offset: number): void {
    const number = Math.floor(offset / 65_536)
    let chunk = this.chunks.get(number)
    if (chunk === undefined) this.chunks.set(number, (chunk = new Uint8Array(8_192)))
    chunk[(offset % 65_536) >> 3]! |= 1 << (offset & 7)
  }
}
