// Inline projections: what their handlers ask for of the events of appends, prepared and folded by the engine's own code, so that an event store
// writes the rows with the events. The store decides when; nothing is written here.
import * as Effect from "effect/Effect"
import { describeError } from "../dead-letter/event-failure.ts"
import { traceIdOf } from "../log/envelope.ts"
import type { NewRecord } from "../log/log.ts"
import type { Meta, Writable } from "../model/handler.ts"
import type { Projection } from "../model/projection.ts"
import { Recorder, type Entries } from "../model/recorder.ts"
import type { Topic } from "../model/topic.ts"
import { handlerResult } from "../model/user-code.ts"
import { EventDecoder } from "../runner/event-decoder.ts"
import { BatchFold, readsRows } from "../runner/fold.ts"
import { readRows, type RowReader } from "../runner/needed-rows.ts"
import { ChangePreparer, type Origin } from "../runner/prepared-changes.ts"
import { runAs } from "../runner/running-code.ts"
import type { StoreError, TableChange, Unstorable, WindowChange } from "../runner/store.ts"
import { InlineFailed } from "./errors.ts"

/** The events of one append as records of the log, before they have positions. */
export interface InlineAppend {
  readonly aggregate: string
  readonly stream: string
  readonly records: ReadonlyArray<NewRecord>
}
/** What an inline build writes with a statement's appends. */
export interface InlineChanges {
  readonly build: Projection.Any
  readonly tables: ReadonlyArray<TableChange>
  readonly windows: ReadonlyArray<WindowChange>
}
/** The rows of the appends that can be made, and why others cannot, by their index. */
export interface InlineRows {
  readonly changes: ReadonlyArray<InlineChanges>
  readonly failed: ReadonlyMap<number, InlineFailed>
}

/** What the handler of a build asked for of one append's events. */
interface Prepared {
  readonly log: Entries
  readonly events: ReadonlyArray<{ readonly origin: Origin; readonly from: number; readonly to: number }>
}

/** What takes effect after a commit, and has no place in an append. */
const notInline: ReadonlySet<string> = new Set(["publish", "send", "timer", "cancel"])
const unknownInline = ["position", "streamTime"] as const
const noPosition = -1
/** What a handler gets as `meta`. An append does not know its position before it is made. */
const metaOf = (origin: Origin): Meta => {
  const { reached: _, traceparent: __, ...meta } = origin
  for (const name of unknownInline)
    Object.defineProperty(meta, name, {
      enumerable: false,
      get: () => {
        throw new Error(
          `meta.${name} is not known while the event is appended; use another value, or run the projection with Projection.async`
        )
      }
    })
  return meta
}

/** Calls the handlers of one build, and checks what they ask for. */
class InlineBuild {
  readonly build: Projection.Any
  private readonly source: Topic.Any
  private readonly decoder: EventDecoder
  private readonly preparer: ChangePreparer

  constructor(build: Projection.Any) {
    this.build = build
    this.source = build.sources[0] as unknown as Topic.Any
    this.decoder = new EventDecoder(build, this.source)
    const isPublishing = { sourcePartitions: 1, hasOneSource: true, hasKeys: true }
    this.preparer = new ChangePreparer(build.writes as ReadonlyArray<Writable>, isPublishing)
  }

  /** Throws why the rows of the append's events cannot be written. */
  prepare({ records, stream }: InlineAppend, now: number): Prepared {
    const log: Entries = []
    const events = records.map((record) => {
      const decoded = this.decoder.decode({ ...record, position: noPosition, appendedAt: now })
      const traceparent = this.decoder.traceOf(record.traceparent)
      const origin: Origin = {
        topic: this.source.name,
        partition: record.partition,
        position: noPosition,
        key: stream,
        eventTime: decoded.time,
        // windows that close are refused, so nothing is late
        streamTime: -Infinity,
        reached: undefined,
        tenant: decoded.tenant,
        traceparent,
        traceId: traceIdOf(traceparent),
        erased: false
      }
      const from = log.length
      const describe = () =>
        `projection ${this.build.name}_v${this.build.version}, an event of ${this.source.name} ${stream}`
      const recorder = new Recorder(log, describe)
      try {
        const context = { meta: metaOf(origin), replaying: false }
        const effect = runAs(describe, () =>
          handlerResult(this.build.handle(decoded.event as never, recorder as never, context))
        )
        if (effect !== undefined)
          throw new Error(
            "the handler returned an Effect, which an append does not run; write a synchronous handler, or run the projection with Projection.async"
          )
      } finally {
        recorder.close()
      }
      for (let i = from; i < log.length; i += 3)
        if (notInline.has(log[i] as string))
          throw new Error(
            `out.${log[i]} is not possible while the event is appended; use it in a policy, or run the projection with Projection.async`
          )
      this.preparer.prepare(log, from, origin)
      return { origin, from, to: log.length }
    })
    return { log, events }
  }
}
const inlineBuilds = new WeakMap<Projection.Any, InlineBuild>()
const inlineBuildOf = (build: Projection.Any): InlineBuild => {
  const found = inlineBuilds.get(build) ?? new InlineBuild(build)
  inlineBuilds.set(build, found)
  return found
}

const failure = (build: Projection.Any, { aggregate, stream }: InlineAppend, thrown: unknown) =>
  new InlineFailed({ aggregate, stream, projection: build.name, reason: describeError(thrown).message })

/** What inline builds make of appends, once their handlers were called. */
export interface PreparedInline {
  /** Why appends cannot be made, by their index. */
  readonly failed: Map<number, InlineFailed>
  readonly builds: ReadonlyArray<{
    readonly build: Projection.Any
    readonly appends: ReadonlyArray<Prepared | undefined>
  }>
  /** The appends whose rows depend on rows that are stored: they hold for one version of the stream only. */
  readonly readingRows: ReadonlySet<number>
}

/** Calls the handlers of the builds for the events of appends that one statement is to make. `now`: epoch milliseconds. */
export const prepareInline = (
  builds: ReadonlyArray<Projection.Any>,
  appends: ReadonlyArray<InlineAppend>,
  now: number
): PreparedInline => {
  const failed = new Map<number, InlineFailed>()
  const readingRows = new Set<number>()
  const prepared = builds.map((build) => ({
    build,
    appends: appends.map((append, i) => {
      if (failed.has(i) || build.sources[0]?.name !== append.aggregate) return undefined
      try {
        const made = inlineBuildOf(build).prepare(append, now)
        if (readsRows(made.log, 0)) readingRows.add(i)
        return made
      } catch (error) {
        failed.set(i, failure(build, append, error))
        return undefined
      }
    })
  }))
  return { failed, builds: prepared, readingRows }
}

/**
 * Folds what handlers asked for into the rows that one statement writes, in the order of the appends. Rows that they need are read by `reader`, which
 * must be done after the state was loaded that the appends' expected versions are of.
 */
export const foldInline = Effect.fnUntraced(function* (
  { builds, failed }: PreparedInline,
  appends: ReadonlyArray<InlineAppend>,
  reader: RowReader
): Effect.fn.Return<InlineRows, StoreError | Unstorable> {
  const folds: Array<(skipped: ReadonlyMap<number, InlineFailed>) => InlineChanges | undefined> = []
  for (const { appends: prepared, build } of builds) {
    const rows = new Map<object, ReadonlyMap<string, Record<string, unknown>>>()
    for (const [i, one] of prepared.entries()) {
      if (one === undefined || failed.has(i) || !readsRows(one.log, 0)) continue
      for (const [target, found] of yield* readRows(reader, build, one.log, one.events))
        rows.set(target, new Map([...(rows.get(target) ?? []), ...found]))
    }
    folds.push((skipped) => {
      const fold = new BatchFold({ sourcePartitions: 1 })
      for (const [i, one] of prepared.entries()) {
        if (one === undefined || skipped.has(i)) continue
        try {
          const describe = () =>
            `projection ${build.name}_v${build.version}, an event of ${appends[i]!.aggregate} ${appends[i]!.stream}`
          runAs(describe, () => {
            for (const { from, origin, to } of one.events)
              fold.apply(one.log, from, to, origin, (target, key) => rows.get(target)?.get(key))
          })
        } catch (error) {
          failed.set(i, failure(build, appends[i]!, error))
          return undefined
        }
      }
      return { build, tables: fold.tableChanges(), windows: fold.windowChanges() }
    })
  }
  // an append that fails leaves nothing behind in any build, so the others are folded once more without it
  for (;;) {
    const before = failed.size
    const changes = folds.map((fold) => fold(failed)).filter((one) => one !== undefined)
    if (failed.size === before) return { changes, failed }
  }
})
