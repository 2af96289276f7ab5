// Re-keys events: a projection that publishes the events of several sources to one topic, under keys of the application's choice. Pure.
import type * as Duration from "effect/Duration"
import { shown } from "../text/text.ts"
import { assertOptions, assertSelected, refuse } from "./declaration.ts"
import { aFunction } from "./definition.ts"
import type { EventType } from "./event.ts"
import type { FailurePolicy } from "./failure-policy.ts"
import { list, remember, type Member, type Named, type OneOrMore, type Select } from "./fields.ts"
import type { Out } from "./handler.ts"
import { hasPersonalFields } from "./personal.ts"
import { type EventOf, type KindOf, Projection } from "./projection.ts"
import { type Source, Topic } from "./topic.ts"
import { checkedFunction } from "./user-code.ts"

/**
 * The new key of events: the name of a field, or a function of the event, for all event types or for each. An event whose function returns
 * undefined is left out, and so are the event types that are not named.
 */
export type KeyBy<Ev> =
  | Select<Ev, string | undefined>
  | { readonly [T in Extract<Ev, Named>["type"]]?: Select<Member<Ev, T>, string | undefined> }
/** No constraint if a key is one of the sources' events; otherwise a type that names what is wrong. */
type Checked<Ev, K> = K extends (...args: never) => unknown
  ? (event: Ev) => string | undefined
  : K extends string
    ? unknown
    : { readonly [T in Exclude<keyof K, Extract<Ev, Named>["type"]>]: "not an event type of the sources" }
/** The events that are published under new keys. */
type Passed<Ev, K> = K extends string | ((...args: never) => unknown) ? Ev : Member<Ev, keyof K>
/** What `Projection.rekey` declares. */
export interface Rekeyed<Name extends string, Ev, Passed, Kind> {
  /** Has the events under their new keys: the source of projections that need them by that key. */
  readonly topic: Topic<Name, Passed>
  /** Publishes them. List it among the application's projections, as `Projection.async(byOrder.projection)`. */
  readonly projection: Projection<Name, Ev, Topic<Name, Passed>, never, never, Kind>
}

const options = ["name", "version", "source", "key", "partitions", "dedupe", "failure", "maxAhead"]
/** The event types that are published, from all sources. Throws `InvalidDeclaration` for sources whose values have none. */
const typesOf = (what: string, sources: ReadonlyArray<Topic.Any>): ReadonlyMap<string, EventType.Any> => {
  const found = new Map<string, EventType.Any>()
  for (const { eventTypes, name } of sources) {
    if (eventTypes === undefined)
      return refuse(
        what,
        `the values of source ${name} are no events with types; use what \`Topic.events\` or \`Aggregate.make\` declares`
      )
    for (const [type, event] of eventTypes) {
      const other = found.get(type)
      if (other !== undefined && other !== event)
        refuse(what, `two sources have different event types ${type}; declare it once, or rename one of the two`)
      found.set(type, event)
    }
  }
  return found
}

type KeyOf = (event: never) => string | undefined
const keyFunction = (what: string, event: EventType.Any, by: unknown): KeyOf => {
  const shape = { name: `event type ${event.type}`, fields: event.versions.at(-1)!.fields }
  assertSelected(what, by, [shape], "text")
  return typeof by === "function" ? checkedFunction(what, by as KeyOf) : (value: never) => value[by as string]
}

/** `Projection.rekey`, where it is described. */
export const rekey = <
  const Name extends string,
  const S extends OneOrMore<Source<any, any>>, // `any`: an event is whatever the source says
  const K extends KeyBy<EventOf<S>>
>(given: {
  /** Of the topic and of the projection. Another key needs another name, so that all events are published again. */
  readonly name: Name
  /** Starts at 1, see `Projection.make`. */
  readonly version: number
  /** Topics of events and aggregates. */
  readonly source: S
  /** The new key: a field, a function, or one of them for each event type. Events without a key, and of types that are left out, are not published. */
  readonly key: K & Checked<EventOf<S>, K>
  /** Of the topic. Default: as many as the first source has. */
  readonly partitions?: number
  /** Ignores duplicates of the sources, see `Projection.make`. */
  readonly dedupe?: { readonly within: Duration.Input; readonly by?: Select<EventOf<S>, string> }
  /** What happens to an event whose key cannot be found. Default: it is parked as a dead letter. */
  readonly failure?: FailurePolicy
  /** Events dated more than this after their append to the log are parked. Default 1 hour. */
  readonly maxAhead?: Duration.Input
}): Rekeyed<Name, EventOf<S>, Passed<EventOf<S>, K>, KindOf<S>> => {
  const { key, name, partitions, source, ...others } = given
  const what = `projection ${name}: \`key\``
  assertOptions(`projection ${name}`, given, options, ["name", "version", "source", "key"])
  const sources = list(source as OneOrMore<Source<any, any>>) as ReadonlyArray<Topic.Any>
  const known = typesOf(`projection ${name}`, sources)
  const isByType = typeof key === "object" && key !== null && !Array.isArray(key)
  const by = new Map<string, unknown>(
    isByType ? Object.entries(key).filter(([, one]) => one !== undefined) : [...known.keys()].map((type) => [type, key])
  )
  if (!isByType && typeof key !== "string" && typeof key !== "function")
    refuse(what, `it is ${shown(key)}; give the name of a field, a function, or one of them for each event type`)
  if (by.size === 0) refuse(what, "it names no event type, so nothing would be published; name at least one")
  const keys = new Map<string, KeyOf>()
  for (const [type, one] of by) {
    const event = known.get(type)
    if (event === undefined)
      return refuse(what, `\`${type}\` is no event type of its sources; they have ${[...known.keys()].join(", ")}`)
    if (hasPersonalFields(event))
      refuse(
        what,
        `event type ${type} has personal fields, which would be readable in topic ${name} and stay after an erasure; ` +
          "publish what you need without them, by a projection with `out.publish`"
      )
    keys.set(type, keyFunction(isByType ? `${what} of ${type}` : what, event, one))
  }
  const keyOf = (event: Named): string | undefined => keys.get(event.type)!(event as never)
  const topic = Topic.events(name, {
    events: [...keys.keys()].map((type) => known.get(type)!),
    key: keyOf as (event: unknown) => string,
    // it is between two projections of the application
    to: ["kafka"],
    ...(partitions !== undefined && { partitions })
  })
  // what definitions compare: the fields, beside the texts of the functions
  const fields = [...by].map(([type, one]) => `${type}: ${typeof one === "string" ? one : aFunction}`).toSorted()
  remember(topic.keyOf, fields)
  const publish = (given: unknown) =>
    remember((event: Named, out: Out<typeof topic>) => {
      if (keyOf(event) !== undefined) out.publish(topic, event as never)
    }, given)
  const handle = Object.fromEntries([...by].map(([type, one]) => [type, publish(one)]))
  const projection = Projection.make({ ...others, name, source: sources, writes: [topic], handle } as never)
  return { topic, projection } as never
}
