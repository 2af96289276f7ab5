// Whether declarations can still read events that were stored before: by samples of stored events. Pure.
import { redacted, unseal } from "../erasure/sealed.ts"
import type { EventType } from "../model/event.ts"
import { personalFieldsOf } from "../model/personal.ts"
import { shown } from "../text/text.ts"
import { namingUpcaster, reasonOf, unreadableAdvice } from "./failures.ts"

/** A stored event as a sample: its type, the version of the type that it was written with, and its JSON. */
export interface EventSample {
  /** The name of the event type. */
  readonly type: string
  /** The version of the event type that it was written with; undefined means 1. */
  readonly schemaVersion: number | undefined
  /** JSON text, or the value itself. */
  readonly value: unknown
}
/** A topic or an aggregate, as far as its stored events are read. */
export interface EventSource {
  /** Whether the events are those of a topic or of an aggregate. */
  readonly kind: "topic" | "aggregate"
  /** The name of the topic or aggregate. */
  readonly name: string
  /** The event types by name; undefined if all values have one shape. */
  readonly eventTypes?: ReadonlyMap<string, EventType.Any>
  /** Decodes the JSON of a stored event of any version into the newest. */
  readonly decode: (json: unknown, version?: number) => unknown
  /** The JSON of an event of the newest version. */
  readonly encode: (value: never) => unknown
}

const mostShown = 10
const inOneLine = (text: string): string => text.replaceAll(/\s*\n\s*/g, " ")
/** Why one stored event cannot be read, and what to do; undefined if it can. */
const sampleProblem = (source: EventSource, { schemaVersion = 1, type, value }: EventSample) => {
  try {
    const stored: unknown = typeof value === "string" ? JSON.parse(value) : value
    // sealed fields are read as erased ones: whether they fit is known to who has the keys
    const fields = personalFieldsOf(source.eventTypes, type, schemaVersion)
    const json = redacted(
      unseal(stored, { aggregate: source.name, stream: null, eventId: undefined }, () => null),
      fields
    )
    const found = (json as { readonly type?: unknown } | null)?.type
    if (found !== type) return { reason: `its \`type\` is ${shown(found)}`, advice: undefined }
    source.encode(source.decode(json, schemaVersion) as never)
    return undefined
  } catch (error) {
    return { reason: inOneLine(namingUpcaster(error, reasonOf(error))), advice: unreadableAdvice(error) }
  }
}
/**
 * Why the declarations of a topic or aggregate cannot read some of its stored events: each event type and version once, with the reason;
 * and what to do. Undefined if all can be read.
 */
export const historyProblem = (
  source: EventSource,
  samples: Iterable<EventSample>
): { readonly message: string; readonly advice: string } | undefined => {
  const problems = new Map<string, { readonly reason: string; readonly advice: string | undefined }>()
  for (const sample of samples) {
    const kind = `event type ${sample.type}, version ${sample.schemaVersion ?? 1}`
    if (problems.has(kind)) continue
    const problem = sampleProblem(source, sample)
    if (problem !== undefined) problems.set(kind, problem)
  }
  if (problems.size === 0) return undefined
  const lines = [...problems].slice(0, mostShown).map(([kind, { reason }]) => `\n  ${kind}: ${reason}`)
  const advice = [...new Set([...problems.values()].flatMap(({ advice: one }) => one ?? []))]
  const more = problems.size > mostShown ? `\n  and ${problems.size - mostShown} more` : ""
  return {
    message: `the declarations of ${source.kind} ${source.name} cannot read events that are stored:${lines.join("")}${more}`,
    advice:
      advice.length === 0 ? "correct the declarations, or deploy the code that wrote the events" : advice.join("; ")
  }
}
