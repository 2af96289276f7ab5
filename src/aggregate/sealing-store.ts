// The event store with encryption of personal data: it seals personal fields before they are stored, and opens them when they are read.
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { SubjectKeysError } from "../erasure/errors.ts"
import {
  isSealedState,
  keysOfState,
  maySeal,
  openState,
  seal,
  sealState,
  type SubjectKey,
  unseal
} from "../erasure/sealed.ts"
import type { SubjectKeys } from "../erasure/subject-keys.ts"
import { shown } from "../text/text.ts"
import { EventStoreError } from "./errors.ts"
import {
  type Answer,
  type Append,
  EventStore,
  type Loaded,
  type NewEvent,
  type NewSnapshot,
  type RecordedEvent
} from "./event-store.ts"

type Store = EventStore["Service"]
type Operation = EventStoreError["operation"]

const isPersonal = ({ personal = [] }: NewEvent): boolean => personal.length > 0
/** An append's events, sealed. `from`: the index of its first event among all of the command. */
const sealed = (
  append: Append,
  commandId: string,
  from: number,
  keys: ReadonlyMap<string, SubjectKey>
): ReadonlyArray<NewEvent> =>
  append.events.map((event, i) => {
    if (!isPersonal(event)) return event
    const { absent, eventId = `${commandId}/${from + i}`, personal, subjects, value } = event
    const key = keys.get(subjects![0]!)!
    const at = { aggregate: append.aggregate, stream: append.stream, eventId }
    const json = JSON.parse(value) as Readonly<Record<string, unknown>>
    const stored = JSON.stringify(seal(json, personal!, key, at, absent))
    return { ...event, eventId, sealed: { value: stored, subject: key.subject, number: key.number } }
  })
const opened = (event: RecordedEvent, find: Parameters<typeof unseal>[2]): RecordedEvent =>
  maySeal(event.value) ? { ...event, value: JSON.stringify(unseal(JSON.parse(event.value), event, find)) } : event

const failedKeys =
  (operation: Operation, aggregate: string) =>
  ({ cause, message, retryable }: SubjectKeysError): Effect.Effect<never, EventStoreError> =>
    Effect.fail(new EventStoreError({ operation, aggregate, retryable, reason: message, cause }))

/** The text of a snapshot whose state cannot be opened: as any that cannot be read, it is ignored. */
const unreadable = ""

/** Opens and stores snapshots whose states are sealed by the keys of their subjects. */
const sealedSnapshots = (store: Store, keys: SubjectKeys["Service"]) => ({
  open: Effect.fnUntraced(function* (aggregate: string, stream: string, { snapshot }: Loaded) {
    if (snapshot === undefined || !isSealedState(snapshot.state)) return snapshot
    const { state, version } = snapshot
    const find = yield* keys
      .forValues(keysOfState(state))
      .pipe(Effect.catchTag("SubjectKeysError", failedKeys("load", aggregate)))
    return { version, state: openState(state, { aggregate, stream, version }, find) ?? unreadable }
  }),
  save: Effect.fnUntraced(function* (aggregate: string, stream: string, snapshot: NewSnapshot) {
    const { personal = false, state, subjects, version } = snapshot
    if (!personal || subjects.length === 0) return yield* store.saveSnapshot(aggregate, stream, snapshot)
    const found = yield* keys.newest(subjects).pipe(
      Effect.catchTags({
        SubjectKeysError: failedKeys("snapshot", aggregate),
        // what was folded before an erasure is not stored after it
        SubjectErased: () => Effect.succeed(undefined)
      })
    )
    if (found === undefined) return
    const sealing = subjects.map((subject) => found.get(subject)!)
    const text = sealState(state, sealing, { aggregate, stream, version })
    yield* store.saveSnapshot(aggregate, stream, { ...snapshot, state: text })
  })
})

/**
 * A store that seals the personal fields of events with keys of their subjects, and states of snapshots that may have them, and opens both when it
 * reads. An append fails with `SubjectErased` if the subject was erased. In an event whose key was destroyed the field `$erased` says so, and the
 * personal fields are missing: decoding replaces them. An event that cannot be decrypted fails its read with an `EventStoreError` that names it.
 */
export const sealing = (store: Store, keys: SubjectKeys["Service"]): Store => {
  const snapshots = sealedSnapshots(store, keys)
  const sealAll = Effect.fnUntraced(function* (appends: ReadonlyArray<Append>, commandId: string) {
    const subjects = new Set(
      appends.flatMap(({ events }) => events.filter(isPersonal).map((event) => event.subjects![0]!))
    )
    if (subjects.size === 0) return appends
    const failed = failedKeys("append", appends[0]!.aggregate)
    const found = yield* keys.newest([...subjects]).pipe(Effect.catchTag("SubjectKeysError", failed))
    let from = 0
    return appends.map((append): Append => {
      const events = sealed(append, commandId, from, found)
      from += events.length
      return { ...append, events }
    })
  })
  const openAll = Effect.fnUntraced(function* (operation: Operation, events: ReadonlyArray<RecordedEvent>) {
    const closed = events.filter(({ value }) => maySeal(value))
    if (closed.length === 0) return events
    const find = yield* keys
      .forValues(closed.map(({ value }) => value))
      .pipe(Effect.catchTag("SubjectKeysError", failedKeys(operation, closed[0]!.aggregate)))
    return yield* Effect.forEach(events, (event) =>
      Effect.try({
        try: () => opened(event, find),
        catch: (cause) => {
          const { aggregate, stream, type, version } = event
          const reason = `event ${version} of ${shown(stream)}, of type ${type}: ${(cause as Error).message}`
          return new EventStoreError({ operation, aggregate, retryable: false, reason, cause })
        }
      })
    )
  })
  const openAnswer = (answer: Answer) =>
    Effect.map(openAll("load", answer.events), (events): Answer => ({ ...answer, events }))

  return EventStore.of({
    ...store,
    append: (append, commandId) =>
      Effect.flatMap(sealAll([append], commandId), ([one]) => store.append(one!, commandId)),
    appendAll: (appends, commandId, boundary) =>
      Effect.flatMap(sealAll(appends, commandId), (all) => store.appendAll(all, commandId, boundary)),
    load: Effect.fnUntraced(function* (aggregate, stream, options) {
      const loaded = yield* store.load(aggregate, stream, options)
      const events = yield* openAll("load", loaded.events)
      const answered = loaded.answered === undefined ? {} : { answered: yield* openAnswer(loaded.answered) }
      const snapshot = yield* snapshots.open(aggregate, stream, loaded)
      return { ...loaded, events, ...answered, ...(snapshot !== undefined && { snapshot }) }
    }),
    saveSnapshot: snapshots.save,
    read: (aggregate, stream, options) =>
      store
        .read(aggregate, stream, options)
        .pipe(
          Stream.mapArrayEffect((events) =>
            Effect.map(openAll("read", events), (all) => all as readonly [RecordedEvent, ...Array<RecordedEvent>])
          )
        ),
    readBoundary: Effect.fnUntraced(function* (aggregate, query) {
      const found = yield* store.readBoundary(aggregate, query)
      return { ...found, events: yield* openAll("read", found.events) }
    }),
    remember: Effect.fnUntraced(function* (...args) {
      const { repeated, ...answer } = yield* store.remember(...args)
      return { ...(yield* openAnswer(answer)), repeated }
    })
  })
}
