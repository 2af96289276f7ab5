// A projection's definition by parts: everything declared that decides what an event does, as JSON that is stored with each build, and the texts of its functions. Pure.
import { readModelsOf, type Column } from "./columns.ts"
import { givenFor } from "./fields.ts"
import { functionText } from "./function-text.ts"
import type { Writable } from "./handler.ts"
import type { Projection } from "./projection.ts"
import type { Topic } from "./topic.ts"
import type { Window } from "./window.ts"

/** What an option is declared as. Durations are milliseconds; functions are `aFunction`, and compared by their texts. */
export type Declared = string | number | boolean | null | ReadonlyArray<string>
/** The options of one part, by name. An option that is not given is null. An option with a space in its name, as `column n`, exists only where it is declared. */
export type PartOptions = Readonly<Record<string, Declared>>
/** Parts by name, such as `window activity`, `source orders` or `dedupe`. */
export type Definition = Readonly<Record<string, PartOptions>>
/** What stands for a function in a definition. */
export const aFunction = "(a function)"

type Selector = ((value: never) => unknown) | undefined
const selected = (selector: Selector): Declared => {
  if (selector === undefined) return null
  const declared = givenFor(selector)
  return typeof declared === "function" ? aFunction : (declared as string | ReadonlyArray<string>)
}
const sorted = (texts: ReadonlyArray<string>) => texts.toSorted((a, b) => (a < b ? -1 : 1))
const finite = (value: number): Declared => (value === Infinity ? "Infinity" : value)

const columnText = ({ nullable, type }: Column): string => (nullable ? `${type} or null` : type)
const foldText = (column: Column, initial: unknown): string =>
  `fold to ${columnText(column)} from ${JSON.stringify(initial, (_, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : value
  )}`

const shapeOf = ({ shape }: Window.Any): PartOptions => {
  const none = { size: null, every: null, timeZone: null, weekStartsOn: null, gap: null }
  switch (shape.type) {
    case "fixed": {
      const [span] = shape.spans
      const hops = span !== undefined && span.everyMs !== span.sizeMs
      return { ...none, size: sorted(shape.spans.map(({ label }) => label)), every: hops ? span.everyMs : null }
    }
    case "calendar":
      return { ...none, size: sorted(shape.units), timeZone: shape.timeZone, weekStartsOn: shape.weekStart }
    case "session":
      return { ...none, gap: shape.gapMs }
    case "global":
      return none
  }
}
const publishedTopic = ({ idOf, keyOf, partitions, tenantOf, timeOf }: Topic.Any): PartOptions => ({
  partitions: partitions ?? null,
  key: selected(keyOf),
  id: selected(idOf),
  eventTime: selected(timeOf),
  tenant: selected(tenantOf)
})
/** The topics that a projection publishes, without dead letters. */
const publishedOf = (projection: Projection.Any): ReadonlyArray<Topic.Any> =>
  (projection.writes as ReadonlyArray<Writable>).flatMap((target) => {
    if (target.kind === "topic") return [target]
    return target.kind === "window" && target.topic !== undefined ? [target.topic] : []
  })
const windowsOf = (projection: Projection.Any): ReadonlyArray<Window.Any> =>
  (projection.writes as ReadonlyArray<Writable>).filter((target) => target.kind === "window")

/** The parts of a projection's definition. Equal declarations in another spelling or order have equal parts. */
export const definitionOf = (projection: Projection.Any): Definition => {
  const { dedupe, enrich, failure, maxAheadMs } = projection
  const sources = projection.sources as ReadonlyArray<Topic.Any>
  const parts: Record<string, PartOptions> = {}
  for (const { keyOf, kind, name, tenantOf, timeOf } of sources)
    parts[`source ${name}`] = {
      kind,
      // events of an aggregate have their stream's id as the key, whatever field holds it
      key: (kind as string) === "aggregate" ? null : selected(keyOf),
      eventTime: selected(timeOf),
      tenant: selected(tenantOf)
    }
  // an id matters to a projection only where it finds duplicates by it
  const ids = sources.map(({ idOf, name }) => `${String(selected(idOf))} of ${name}`)
  parts["dedupe"] = {
    within: dedupe?.withinMs ?? null,
    by: dedupe === undefined ? null : dedupe.by === undefined ? sorted(ids) : selected(dedupe.by)
  }
  for (const [name, { asOf, by, topic }] of Object.entries(enrich))
    parts[`lookup ${name}`] = { topic: topic.name, by: selected(by), asOf }
  parts["failure"] = {
    // oxlint-disable-next-line unicorn/no-thenable -- a word of failure policies
    then: failure.then ?? "park",
    order: failure.order ?? null,
    deadLetterTopic: failure.deadLetterTopic ?? null
  }
  parts["maxAhead"] = { maxAhead: maxAheadMs }
  const relations = new Map(readModelsOf(projection.writes as ReadonlyArray<Writable>).map((one) => [one.name, one]))
  for (const target of projection.writes as ReadonlyArray<Writable>) {
    if (target.kind !== "table") continue
    const columns = relations.get(target.name)!.columns.map((column) => [`column ${column.name}`, columnText(column)])
    parts[`table ${target.name}`] = {
      primaryKey: target.primaryKey,
      shared: target.shared,
      ...Object.fromEntries(columns)
    }
  }
  for (const window of windowsOf(projection)) {
    const columns = new Map(relations.get(window.name)!.columns.map((column) => [column.name, column]))
    parts[`window ${window.name}`] = {
      kind: window.shape.type,
      ...shapeOf(window),
      grace: finite(window.graceMs),
      emit: window.emit,
      shared: window.shared,
      publish: window.topic?.name ?? null,
      ...Object.fromEntries(window.key.map((name) => [`key ${name}`, columnText(columns.get(name)!)])),
      ...Object.fromEntries(
        Object.entries(window.aggregate).map(([name, { initial, sql }]) => [
          `aggregate ${name}`,
          sql === "fold" ? foldText(columns.get(name)!, initial) : sql
        ])
      )
    }
  }
  for (const topic of publishedOf(projection)) parts[`published topic ${topic.name}`] = publishedTopic(topic)
  return parts
}

const addText = (texts: Record<string, string>, name: string, run: object | undefined): void => {
  const declared = run === undefined ? undefined : givenFor(run)
  if (typeof declared === "function") texts[name] = functionText(declared as never)
}
/** The texts of a projection's functions by what they are, such as `handler of order.placed` or `by of lookup rates`. */
export const functionTextsOf = (projection: Projection.Any): Readonly<Record<string, string>> => {
  const texts: Record<string, string> = {}
  const handle = givenFor(projection.handle)
  addText(texts, "handler", projection.handle)
  if (typeof handle === "object")
    for (const [type, handler] of Object.entries(handle as Readonly<Record<string, object | undefined>>))
      addText(texts, `handler of ${type}`, handler)
  for (const source of projection.sources as ReadonlyArray<Topic.Any>) {
    addText(texts, `eventTime of source ${source.name}`, source.timeOf)
    addText(texts, `tenant of source ${source.name}`, source.tenantOf)
    if (projection.dedupe !== undefined && projection.dedupe.by === undefined)
      addText(texts, `id of source ${source.name}`, source.idOf)
    for (const { type, versions } of source.eventTypes?.values() ?? [])
      for (const [i, { upcast }] of versions.entries())
        if (i > 0) addText(texts, `upcaster of ${type} to version ${i + 1}`, upcast)
  }
  addText(texts, "by of dedupe", projection.dedupe?.by)
  for (const [name, { by }] of Object.entries(projection.enrich)) addText(texts, `by of lookup ${name}`, by)
  for (const window of windowsOf(projection))
    for (const [name, { add, sql }] of Object.entries(window.aggregate))
      if (sql === "fold") addText(texts, `add of aggregate ${name} of window ${window.name}`, add)
  for (const topic of publishedOf(projection)) {
    addText(texts, `key of topic ${topic.name}`, topic.keyOf)
    addText(texts, `id of topic ${topic.name}`, topic.idOf)
    addText(texts, `eventTime of topic ${topic.name}`, topic.timeOf)
    addText(texts, `tenant of topic ${topic.name}`, topic.tenantOf)
  }
  return texts
}
