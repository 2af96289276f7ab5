// Compares the behaviour of handlers with samples of it after a start, and takes samples while events are processed.
import * as Effect from "effect/Effect"
import type { Aggregate } from "../model/aggregate.ts"
import { hasPersonalData } from "../model/erasures.ts"
import type { Projection } from "../model/projection.ts"
import type { Topic } from "../model/topic.ts"
import type { Sql } from "../postgres/client/client.ts"
import { adviceAboutFunctions } from "../postgres/store/definitions.ts"
import { addToSample, noteBehaviour, readSample } from "../postgres/store/samples.ts"
import { BehaviourSampler, behaviourOf, type SampledEvent } from "../runner/behaviour.ts"

/** How often events that were taken are stored. */
const every = "2 seconds"
/** How long a process that stops waits for the database to store them. */
const leaveFor = "1 second"

/** Whether the log may still have the event: a sample keeps nothing for longer. */
const isKept = (projection: Projection.Any, { meta, takenAt }: SampledEvent): boolean => {
  const source = projection.sources.find(({ name }) => name === meta.topic) as Topic.Any | undefined
  return source !== undefined && Date.now() - takenAt < (source.retentionMs ?? Infinity)
}

const isAggregate = (source: { readonly kind: string }): source is Aggregate.Any => source.kind === "aggregate"
/**
 * Compares a build's handler with its sample: what differs is logged and noted for the status. Returns the sampler for what the sample lacks;
 * undefined if it lacks nothing, or compares nothing because functions changed.
 */
export const checkBehaviour = Effect.fnUntraced(function* (sql: Sql, build: Projection.Any) {
  // a sample would keep personal data beyond its erasure
  if (build.sources.some((source) => isAggregate(source) && hasPersonalData(source))) return undefined
  const stored = yield* readSample(sql, build)
  if (stored === undefined) return undefined
  const sample = stored.filter((event) => isKept(build, event))
  const differing = sample.filter((event) => behaviourOf(build, event) !== event.recorded)
  const [first] = differing
  if (first === undefined) {
    // also where an event was deleted, or the behaviour is what it was before
    yield* noteBehaviour(sql, build, sample, null)
    const sampler = new BehaviourSampler(build, sample)
    return sampler.isOpen ? sampler : undefined
  }
  const { partition, position, topic } = first.meta
  const text =
    `the handler records something else for ${differing.length} of ${sample.length} sampled events, such as ${topic}/${partition} position ${position}, ` +
    "although its text is the same: what it uses changed"
  yield* noteBehaviour(sql, build, sample, text)
  yield* Effect.logWarning(`projection ${build.name} v${build.version}: ${text}. ${adviceAboutFunctions(build.name)}`)
  return undefined
})

/** Stores what a sampler takes, until it takes no more, and what it has taken when this is interrupted. */
export const storeSamples = (sql: Sql, build: Projection.Any, sampler: BehaviourSampler) => {
  const store = Effect.suspend(() => {
    const events = sampler.take()
    return events.length === 0 ? Effect.void : Effect.asVoid(addToSample(sql, build, events))
  })
  const whileOpen = Effect.gen(function* () {
    while (sampler.isOpen) {
      yield* Effect.sleep(every)
      yield* store
    }
    yield* store
  })
  return Effect.onInterrupt(whileOpen, () => Effect.ignore(Effect.timeoutOption(store, leaveFor)))
}
