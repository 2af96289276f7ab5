// `EventHistory`: a file of sample events beside the code, by which tests notice declarations that no longer read what is stored.
import { appendFileSync, existsSync, readFileSync } from "node:fs"
import * as Arbitrary from "effect/Arbitrary"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type EventSample, type EventSource, historyProblem } from "../aggregate/event-history.ts"
import type { EventType } from "../model/event.ts"

const typesOf = ({ eventTypes, kind, name }: EventSource): ReadonlyArray<EventType.Any> => {
  if (eventTypes !== undefined) return [...eventTypes.values()]
  throw new Error(`${kind} ${name} has no event types; a history can be kept of a topic of events or an aggregate`)
}
const kindOf = ({ schemaVersion = 1, type }: Pick<EventSample, "schemaVersion" | "type">) => `${type} ${schemaVersion}`

/** The samples of a file, one in each line. Throws an error that names the line that is none. */
const readSamples = (file: string | URL): ReadonlyArray<EventSample> =>
  readFileSync(file, "utf8")
    .split("\n")
    .flatMap((line, i) => {
      if (line.trim() === "") return []
      try {
        const { schemaVersion, type, value } = JSON.parse(line) as EventSample
        if (typeof type === "string" && Number.isInteger(schemaVersion) && value !== undefined)
          return [{ type, schemaVersion, value }]
      } catch {
        // reported below
      }
      throw new Error(
        `line ${i + 1} of ${String(file)} is no sample; it must be JSON with \`type\`, \`schemaVersion\` and \`value\``
      )
    })

/** How samples are generated. */
export interface SampleOptions {
  /** How many samples of each version of each event type. Default 3. */
  readonly samples?: number
  /** Makes the samples the same in each run. Default: the name of the event type. */
  readonly seed?: string | number
}
/** Generated samples of one version of an event type, as that version's code would have stored them. */
const generated = (
  { type, versions }: EventType.Any,
  version: number,
  { samples = 3, seed = type }: SampleOptions
): ReadonlyArray<EventSample> => {
  const schema = Schema.Struct({ type: Schema.Literal(type), ...versions[version - 1]!.fields })
  const values = Effect.runSync(
    Arbitrary.sampleEffect(Arbitrary.schema(schema), { count: samples, seed: `${seed} ${version}`, size: 8 })
  )
  const encode = Schema.encodeUnknownSync(schema as unknown as Schema.Codec<unknown>)
  return values.map((value) => ({
    type,
    schemaVersion: version,
    value: JSON.parse(JSON.stringify(encode(value))) as unknown
  }))
}

/** Keeps samples of stored events in a file beside the code, and checks that the declarations still read them. */
export const EventHistory = {
  /**
   * Checks that the declarations read every sample of the file, and that the file has samples of each declared version of each event type.
   * Throws an error that names the event types and versions, and what to do. The file has one JSON object a line: `type`, `schemaVersion` and
   * `value`.
   *
   * ```ts
   * test("stored cases can be read", () => EventHistory.check(AlertCase, new URL("alert-case.history.ndjson", import.meta.url)))
   * ```
   */
  check: (source: EventSource, file: string | URL): void => {
    const types = typesOf(source)
    if (!existsSync(file))
      throw new Error(`${String(file)} does not exist; create it once with EventHistory.record, and commit it`)
    const samples = readSamples(file)
    const problem = historyProblem(source, samples)
    if (problem !== undefined)
      throw new Error(`${problem.message}\ntry: ${problem.advice}\n(samples of ${String(file)})`)
    const present = new Set(samples.map(kindOf))
    const missing = types.flatMap(({ type, versions }) =>
      versions.flatMap((_, i) =>
        present.has(kindOf({ type, schemaVersion: i + 1 })) ? [] : [`${type}, version ${i + 1}`]
      )
    )
    if (missing.length > 0)
      throw new Error(
        `${String(file)} has no sample of ${missing.join("; ")}. Run EventHistory.record once, which adds them, and commit the file`
      )
  },
  /**
   * Adds samples to the file, which it creates if it does not exist: of each declared version of each event type that the file has none of.
   * Lines that are there stay as they are. By default the samples are generated from the schemas; `stored` are events of a store instead,
   * as `EventStore.read` returns them, of which the first of each version of each type is taken. Returns how many samples it added.
   *
   * Real events may have personal data, which the file would keep.
   */
  record: (
    source: EventSource,
    file: string | URL,
    options: SampleOptions & {
      /** Events of a store, which become the samples. Default: samples are generated from the schemas. */
      readonly stored?: Iterable<EventSample>
    } = {}
  ): number => {
    const present = new Set((existsSync(file) ? readSamples(file) : []).map(kindOf))
    const added: Array<EventSample> = []
    const kinds = new Set<string>()
    for (const { schemaVersion = 1, type, value } of options.stored ?? []) {
      const kind = kindOf({ type, schemaVersion })
      if (present.has(kind) || kinds.has(kind)) continue
      kinds.add(kind)
      added.push({ type, schemaVersion, value: typeof value === "string" ? JSON.parse(value) : value })
    }
    if (options.stored === undefined)
      for (const eventType of typesOf(source))
        for (const [i] of eventType.versions.entries())
          if (!present.has(kindOf({ type: eventType.type, schemaVersion: i + 1 })))
            added.push(...generated(eventType, i + 1, options))
    if (added.length > 0) {
      const endsInside = existsSync(file) && /[^\n]$/.test(readFileSync(file, "utf8"))
      appendFileSync(file, `${endsInside ? "\n" : ""}${added.map((sample) => JSON.stringify(sample)).join("\n")}\n`)
    }
    return added.length
  }
}
