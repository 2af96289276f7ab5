// A sample of what a plain handler records for events, by which a handler that does something else under the same text is noticed.
import { createHash } from "node:crypto"
import * as Context from "effect/Context"
import { parseJson } from "../log/json.ts"
import type { Meta } from "../model/handler.ts"
import type { Projection } from "../model/projection.ts"
import { Recorder, type Entries, type Modification } from "../model/recorder.ts"
import type { Topic } from "../model/topic.ts"

/** An event of a sample, with everything that its handler saw. */
export interface SampledEvent {
  readonly meta: Meta
  /** The event's type, or empty. */
  readonly type: string
  /** The event as JSON of its newest version. */
  readonly value: string
  readonly version: number
  /** The values of its lookups as JSON, in the order of their declaration; null where there was none. */
  readonly lookups: ReadonlyArray<string | null>
  /** A hash of what the handler recorded. */
  readonly recorded: string
  /** When it was taken, epoch milliseconds. */
  readonly takenAt: number
}

/** How many events a build's sample has. */
export const sampleSize = 100
/** Longer values and lookups are left out of a sample. */
const longest = 4_096
/** How many events are looked at until a sampler gives up: handlers may return Effects, which are never sampled, or values may be too long. */
const mostAttempts = 1_000

const sourceOf = (projection: Projection.Any, { topic }: Meta): Topic.Any | undefined =>
  projection.sources.find(({ name }) => name === topic) as Topic.Any | undefined
const lookupTopics = ({ enrich }: Projection.Any) => Object.values(enrich).map(({ topic }) => topic)

/** What a change makes of no row; its error's name if it throws. */
const changedRow = ({ change, key }: Modification): unknown => {
  try {
    return { key, changed: change(undefined) }
  } catch (error) {
    return { key, failed: (error as Error | undefined)?.name }
  }
}
/** A hash of what a handler recorded. Throws if that has no JSON form. */
const hashOf = (entries: Entries): string => {
  const calls: Array<unknown> = []
  for (let i = 0; i < entries.length; i += 3) {
    const [kind, target, payload] = entries.slice(i, i + 3) as [string, { readonly name: string }, unknown]
    calls.push([kind, target.name, kind === "modify" ? changedRow(payload as Modification) : payload])
  }
  const text = JSON.stringify(calls, (_, value: unknown) =>
    typeof value === "bigint" || typeof value === "number" || value === undefined ? String(value) : value
  )
  return createHash("sha256").update(text).digest("base64url").slice(0, 22)
}

/**
 * Runs the handler for a sampled event, in memory and as if it were replayed. Returns a hash of what it recorded; undefined if it throws, returns
 * anything (an Effect is never run), or if the event no longer fits its schema.
 */
export const behaviourOf = (projection: Projection.Any, event: SampledEvent): string | undefined => {
  try {
    const { lookups, meta, value, version } = event
    const context: Record<string, unknown> = { meta, replaying: true }
    for (const [i, topic] of lookupTopics(projection).entries()) {
      const text = lookups[i]
      context[Object.keys(projection.enrich)[i]!] = text == null ? undefined : topic.decode(parseJson(text))
    }
    const entries: Entries = []
    const recorder = new Recorder(entries, () => "an event of a sample")
    const decoded = sourceOf(projection, meta)!.decode(parseJson(value), version)
    const result: unknown = projection.handle(decoded as never, recorder as never, context)
    recorder.close()
    return result !== null && typeof result === "object" ? undefined : hashOf(entries)
  } catch {
    return undefined
  }
}

/** An event that is being handled, and may become part of a sample. */
interface Draft extends Omit<SampledEvent, "recorded"> {}

/**
 * Takes events of a build into its sample, some of each type, while they are processed. Nothing that a value or a handler does makes it
 * throw, and it gives up after some attempts.
 */
export class BehaviourSampler {
  private readonly projection: Projection.Any
  private readonly counts = new Map<string, number>()
  private readonly perType: number
  private missing: number
  private attempts = 0
  private taken: Array<SampledEvent> = []

  /** `known`: the events that the sample has already. */
  constructor(projection: Projection.Any, known: ReadonlyArray<SampledEvent>) {
    this.projection = projection
    const types = new Set((projection.sources as ReadonlyArray<Topic.Any>).flatMap((source) => source.types ?? [""]))
    this.perType = Math.ceil(sampleSize / types.size)
    this.missing = sampleSize - known.length
    for (const { type } of known) this.counts.set(type, (this.counts.get(type) ?? 0) + 1)
  }

  /** Whether it takes further events. */
  get isOpen(): boolean {
    return this.missing > 0 && this.attempts < mostAttempts
  }
  /** Notes an event before its handler is called; undefined if it is not needed. */
  begin(event: unknown, meta: Meta, lookedUp: ReadonlyArray<unknown>): Draft | undefined {
    if (!this.isOpen) return undefined
    try {
      const type = String((event as { readonly type?: unknown } | null)?.type ?? "")
      if ((this.counts.get(type) ?? 0) >= this.perType) return undefined
      this.attempts++
      const source = sourceOf(this.projection, meta)
      const value = source?.stringify(event as never)
      const lookups = lookupTopics(this.projection).map((topic, i) =>
        lookedUp[i] === undefined ? null : topic.stringify(lookedUp[i] as never)
      )
      const isShort = (text: string | null | undefined) => text !== undefined && (text?.length ?? 0) <= longest
      if (!isShort(value) || !lookups.every(isShort)) return undefined
      const { erased, eventTime, key, partition, position, streamTime, tenant, topic, traceId } = meta
      return {
        meta: { topic, partition, position, key, eventTime, streamTime, tenant, traceId, erased },
        type,
        value: value!,
        version: source!.versionOf(event as never),
        lookups: lookups as ReadonlyArray<string | null>,
        takenAt: Date.now()
      }
    } catch {
      return undefined
    }
  }
  /** Notes what the plain handler of a draft's event recorded. */
  end(draft: Draft, entries: Entries): void {
    try {
      this.taken.push({ ...draft, recorded: hashOf(entries) })
      this.missing--
      this.counts.set(draft.type, (this.counts.get(draft.type) ?? 0) + 1)
    } catch {
      // what has no JSON form is not sampled
    }
  }
  /**
   * The events that were taken since the last call, without those for which the handler records something else now: it uses the time, chance, or state
   * of its own. They are not taken again.
   */
  take(): ReadonlyArray<SampledEvent> {
    const { taken } = this
    this.taken = []
    return taken.filter((event) => behaviourOf(this.projection, event) === event.recorded)
  }
}

/** Samplers by build. A build gets one, and loses it again, while it runs. */
export type Samplers = ReadonlyMap<Projection.Any, BehaviourSampler>
/** The samplers of the builds that this process runs. Default: none. */
export const BehaviourSamplers = Context.Reference<Samplers>("millrace/BehaviourSamplers", {
  defaultValue: () => new Map()
})
