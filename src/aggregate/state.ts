// States of streams: folded from their events page by page, and from snapshots of the same shape.
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import type { Aggregate } from "../model/aggregate.ts"
import { redacted } from "../erasure/sealed.ts"
import { unreadablePersonal } from "../erasure/unreadable.ts"
import { personalFieldsOf } from "../model/personal.ts"
import type { EventStore, Loaded, LoadError, RecordedEvent } from "./event-store.ts"
import { AggregateFailed, reasonOf, UnreadableEvent, unreadableReason } from "./failures.ts"

type Store = EventStore["Service"]
/** Every error of loading a state. */
export type LoadStateError = LoadError | UnreadableEvent | AggregateFailed

/** A state, and what it was folded from. */
export interface StreamState<State> {
  readonly state: State
  /** The number of the stream's events that it was folded from. */
  readonly version: number
  /** The version of the newest snapshot that is known; 0 if there is none. */
  readonly snapshotVersion: number
  /** Everybody whom the folded events are about. */
  readonly subjects: ReadonlySet<string>
}

const shapes = new WeakMap<object, string>()
/**
 * Identifies the form of an aggregate's state: the JSON schema of the state, and the aggregate's `version`. A snapshot of another shape is
 * ignored.
 */
export const shapeOf = (aggregate: Aggregate.Any): string => {
  const known = shapes.get(aggregate)
  if (known !== undefined) return known
  const { state, version } = aggregate
  let form: string
  try {
    form = JSON.stringify(Schema.toJsonSchemaDocument(Schema.toCodecJson(state as Schema.Codec<unknown>)))
  } catch {
    // without a JSON schema only the version says which snapshots fit
    form = ""
  }
  const shape = createHash("sha256").update(`${version}\n${form}`).digest("hex").slice(0, 32)
  shapes.set(aggregate, shape)
  return shape
}

/** The JSON of a state that was loaded. Fails with `AggregateFailed` if `evolve` made one that does not fit the aggregate's schema. */
export const encodedState = (
  aggregate: Aggregate.Any,
  stream: string,
  state: unknown
): Effect.Effect<unknown, AggregateFailed> =>
  Effect.try({
    try: () => aggregate.encodeState(state as never),
    catch: (cause) => {
      const reason = `it made a state that does not fit the schema of \`state\`: ${reasonOf(cause)}`
      const at = { aggregate: aggregate.name, stream, command: undefined, operation: "evolve" } as const
      return new AggregateFailed({ ...at, reason, cause })
    }
  })

/** The JSON text of a snapshot. Throws if the state does not fit its schema. */
export const snapshotText = <State>(aggregate: Aggregate.Any, { state, subjects }: StreamState<State>): string =>
  JSON.stringify({ state: aggregate.encodeState(state), subjects: [...subjects] })
/** The state of a snapshot; undefined if it cannot be read. */
const readSnapshot = <State>(
  aggregate: Aggregate.Any,
  { state: text, version }: NonNullable<Loaded["snapshot"]>
): StreamState<State> | undefined => {
  try {
    const { state, subjects } = JSON.parse(text) as {
      readonly state: unknown
      readonly subjects: ReadonlyArray<string>
    }
    return { state: aggregate.decodeState(state), version, snapshotVersion: version, subjects: new Set(subjects) }
  } catch {
    return undefined
  }
}
const initialState = <State>({ initial }: Aggregate.Any): StreamState<State> => ({
  state: initial,
  version: 0,
  snapshotVersion: 0,
  subjects: new Set()
})

/** A stored event as the newest version of its type. Throws `UnreadableEvent`. */
export const decodeEvent = <Ev>(
  aggregate: Aggregate.Any,
  { schemaVersion, stream, type, value, version }: RecordedEvent
): Ev => {
  const fields = personalFieldsOf(aggregate.eventTypes, type, schemaVersion ?? 1)
  try {
    return aggregate.decode(redacted(JSON.parse(value), fields), schemaVersion ?? 1)
  } catch (error) {
    // what is wrong is logged and answered, so it must not quote personal data
    const known = fields.size === 0 ? error : unreadablePersonal(error, type, schemaVersion ?? 1, aggregate.eventTypes)
    const reason = unreadableReason(error, reasonOf(known))
    throw new UnreadableEvent({ aggregate: aggregate.name, stream, version, type, reason })
  }
}
/** What a function of the aggregate makes of an event of a stream. Throws `AggregateFailed`. */
const made = <A>(
  aggregate: Aggregate.Any,
  operation: "evolve" | "subject",
  { stream, type, version }: Pick<RecordedEvent, "stream" | "type" | "version">,
  make: () => A
): A => {
  try {
    return make()
  } catch (cause) {
    const reason = `event ${version} of type ${type}: ${reasonOf(cause)}`
    throw new AggregateFailed({ aggregate: aggregate.name, stream, command: undefined, operation, reason, cause })
  }
}
/** The state after an event of a stream. Throws `AggregateFailed`. */
export const evolved = <State>(
  aggregate: Aggregate.Any,
  recorded: Pick<RecordedEvent, "stream" | "type" | "version">,
  state: State,
  event: never
): State => made(aggregate, "evolve", recorded, () => aggregate.evolve(state, event))
/** The subjects of an event of a stream. Throws `AggregateFailed`. */
export const subjectsIn = (aggregate: Aggregate.Any, recorded: RecordedEvent, event: never): ReadonlyArray<string> =>
  made(aggregate, "subject", recorded, () => aggregate.subjectsOf(event, recorded))
/** The state after more events. Throws `UnreadableEvent` and `AggregateFailed`. */
export const foldEvents = <State>(
  aggregate: Aggregate.Any,
  from: StreamState<State>,
  events: ReadonlyArray<RecordedEvent>
): StreamState<State> => {
  let { state } = from
  const subjects = new Set(from.subjects)
  for (const recorded of events) {
    const event = decodeEvent<never>(aggregate, recorded)
    for (const subject of subjectsIn(aggregate, recorded, event)) subjects.add(subject)
    state = evolved(aggregate, recorded, state, event)
  }
  return { ...from, state, version: events.at(-1)?.version ?? from.version, subjects }
}
const isKnown = (error: unknown): error is UnreadableEvent | AggregateFailed =>
  error instanceof UnreadableEvent || error instanceof AggregateFailed
const fold = <State>(...args: Parameters<typeof foldEvents<State>>) =>
  Effect.try({
    try: () => foldEvents<State>(...args),
    catch: (error) => error
  }).pipe(Effect.catch((error) => (isKnown(error) ? Effect.fail(error) : Effect.die(error))))

/** How many events a page has at most: the store's own bounds are rows and bytes, and a row may have thousands of events. */
const pageEvents = 20_000

/** How a state is loaded. */
export interface LoadStateOptions<State> {
  /** A state to continue. Default: the newest snapshot, or the initial state. */
  readonly from?: StreamState<State> | undefined
  /** The last version to fold. */
  readonly upTo?: number | undefined
  /** Folds events up to the first one that was appended after this time, in epoch milliseconds, and no snapshot. */
  readonly appendedBy?: number | undefined
}
/**
 * Loads a stream's state, in pages: so memory does not grow with the stream. It is the newest state when the last page was read.
 * Snapshots that cannot be decoded are ignored.
 */
export const loadState = Effect.fnUntraced(function* <State>(
  store: Store,
  aggregate: Aggregate.Any,
  stream: string,
  { appendedBy, from, upTo }: LoadStateOptions<State> = {}
): Effect.fn.Return<StreamState<State>, LoadStateError> {
  const last = upTo === undefined ? {} : { upTo }
  let useSnapshot = from === undefined && appendedBy === undefined
  let folded = from ?? initialState<State>(aggregate)
  let next: Fiber.Fiber<Loaded, LoadError> | undefined
  for (;;) {
    const start = useSnapshot ? { shape: shapeOf(aggregate) } : { from: folded.version + 1 }
    const page = yield* next === undefined
      ? store.load(aggregate.name, stream, { ...start, ...last, limit: pageEvents })
      : Fiber.join(next)
    next = undefined
    if (useSnapshot && page.snapshot !== undefined) {
      const read = readSnapshot<State>(aggregate, page.snapshot)
      useSnapshot = false
      if (read === undefined) continue
      folded = read
    }
    useSnapshot = false
    const events =
      appendedBy === undefined ? page.events : takeWhile(page.events, ({ appendedAt }) => appendedAt <= appendedBy)
    const { version } = events.at(-1) ?? folded
    const isLast = events.length < page.events.length || version >= Math.min(page.version, upTo ?? Infinity)
    if (events.length > 0 && !isLast) {
      // the database reads the next page while this one is folded
      const following = store.load(aggregate.name, stream, { from: version + 1, ...last, limit: pageEvents })
      next = yield* Effect.forkChild(following, { startImmediately: true })
      yield* sending
    }
    folded = yield* fold(aggregate, folded, events)
    if (next === undefined) return folded
  }
})
/** Two turns of the event loop: the driver sends what was asked for after one. */
const sending = Effect.promise(() => new Promise<void>((resolve) => void setImmediate(() => setImmediate(resolve))))
const takeWhile = <A>(values: ReadonlyArray<A>, keep: (value: A) => boolean): ReadonlyArray<A> => {
  const end = values.findIndex((value) => !keep(value))
  return end === -1 ? values : values.slice(0, end)
}
