// An application, the value that `millrace.config.ts` exports: its projections, aggregates, and the services that their handlers need.
import type * as Layer from "effect/Layer"
import type { Aggregate } from "./aggregate.ts"
import { shown } from "../text/text.ts"
import { assertOptions, refuse } from "./declaration.ts"
import { topicsBehind, writtenTopics } from "./chains.ts"
import { deadLetterTopics } from "./dead-letter-topic.ts"
import { Erasures, hasPersonalData } from "./erasures.ts"
import type { Writable } from "./handler.ts"
import { Projection, type Run } from "./projection.ts"
import type { Table, View } from "./read-model.ts"
import type { Tenancy } from "./tenancy.ts"
import type { Destination, Topic } from "./topic.ts"
import type { Window } from "./window.ts"

/** An application. `millrace.config.ts` exports one by default; the CLI, the server and tests read it. */
export interface Application<out E, in out R> {
  /** The name, which consumer groups and the database carry. */
  readonly name: string
  /** The aggregates that are declared, without those that only projections name. */
  readonly aggregates: ReadonlyArray<Aggregate.Any>
  /** The projections that are kept in the database, behind the log or inline. */
  readonly projections: ReadonlyArray<Run<E, R>>
  /** The projections that are folded when they are read, and of which nothing is stored. */
  readonly live: ReadonlyArray<Projection.Any>
  /** The views over its read models. */
  readonly views: ReadonlyArray<View>
  /** The services that handlers need. */
  readonly services: Layer.Layer<R> | undefined
  /** The tenants that get derived topics on Pulsar. */
  readonly pulsar: Tenancy | undefined
}
export declare namespace Application {
  /** An application with any errors and services. */
  type Any = Omit<Application<unknown, never>, "services"> & {
    /** The services that handlers need. */
    readonly services: Layer.Layer<never> | undefined
  }
}
// distributive, for an empty list has neither errors nor services
type ErrorOf<A> = A extends Run<infer E, any> ? E : never
type ServicesOf<A> = A extends Run<any, infer R> ? R : never
type Provided<R> = [R] extends [never] ? { readonly services?: undefined } : { readonly services: Layer.Layer<R> }
/** Declares applications. */
export const Application = {
  /**
   * Declares an application. `services` is required if a handler needs some, and does not compile otherwise. Throws if two projections have
   * the same name and version, if two write one read model that is not shared, if one reads a topic that is not in the log, if one sends commands to an aggregate that the
   * application does not have, or if a topic or a publishing projection over an aggregate has the aggregate's name.
   *
   * ```ts
   * export default Application.make({ name: "flights", projections: [Projection.async(departures)] })
   * ```
   */
  make: <
    const P extends ReadonlyArray<Run<any, any>>,
    const Q extends ReadonlyArray<Projection.Of<any, any>> = readonly []
  >(
    options: {
      /** The name, which consumer groups and the database carry. Another name is another application. */
      readonly name: string
      /** The aggregates that take commands. Default: none. */
      readonly aggregates?: ReadonlyArray<Aggregate.Any>
      /** The projections, each wrapped in when it runs: `Projection.async`, `Projection.inline` or `Projection.live`. */
      readonly projections: P
      /** Policies, which run behind the log as projections do. They are listed among `projections` of the application. */
      readonly policies?: Q
      /** Views over the read models, which processes create when they start. */
      readonly views?: ReadonlyArray<View>
      /** The tenants that get derived topics on Pulsar. Default: derived topics have no tenants there. */
      readonly pulsar?: Tenancy
    } & Provided<ServicesOf<P[number]> | Projection.Services<Q[number]>>
  ): Application<
    ErrorOf<P[number]> | Projection.Error<Q[number]>,
    ServicesOf<P[number]> | Projection.Services<Q[number]>
  > => {
    assertOptions(
      "application",
      options,
      ["name", "aggregates", "projections", "policies", "views", "pulsar", "services"],
      ["name", "projections"]
    )
    if (typeof options.name !== "string" || options.name.trim() === "")
      refuse(
        "application",
        `its name is ${shown(options.name)}; give it one, because its consumer groups and its database carry it`
      )
    for (const [i, run] of (options.projections as ReadonlyArray<Partial<Run<unknown, unknown>> | undefined>).entries())
      if (run?.projection === undefined || run.lifecycle === undefined)
        refuse(
          "application",
          `element ${i} of \`projections\` is no run of a projection; wrap it, as \`Projection.async(projection)\``
        )
    const { policies = [], ...others } = options
    for (const [i, policy] of (policies as ReadonlyArray<Partial<Projection.Any> | undefined>).entries())
      if (typeof policy?.handle !== "function")
        refuse("application", `element ${i} of \`policies\` is no policy; give what \`Policy.make\` declares`)
    const runs = [...options.projections, ...policies.map((policy) => Projection.async(policy))]
    const projections = runs.map(({ projection }) => projection as Projection.Any)
    assertDistinct(projections)
    assertReadable(projections)
    assertViews(options.views ?? [], projections)
    const stored = runs.filter(({ lifecycle }) => lifecycle !== "live")
    const live = options.projections.filter(({ lifecycle }) => lifecycle === "live").map(({ projection }) => projection)
    const application = { aggregates: [], views: [], pulsar: undefined, ...others, projections: stored, live }
    assertApart(application as never)
    assertSent(application as never)
    return application as never
  }
}

/** A read model belongs to one projection, which may have several versions, or is shared by all projections that write it. */
const assertDistinct = (projections: ReadonlyArray<Projection.Any>) => {
  const versions = new Set<string>()
  const owners = new Map<string, { readonly target: Table.Any | Window.Any; readonly projection: string }>()
  for (const { name, version, writes } of projections) {
    if (versions.has(`${name} ${version}`)) {
      throw new Error(
        `two projections are called ${name} and have version ${version}; rename one of them, or increase its version`
      )
    }
    versions.add(`${name} ${version}`)
    for (const target of writes as ReadonlyArray<Writable>) {
      if (target.kind === "topic") continue
      const owner = owners.get(target.name)
      if (owner === undefined) owners.set(target.name, { target, projection: name })
      else if (owner.projection !== name)
        assertShared(target, owner.target, `projections ${owner.projection} and ${name}`)
    }
  }
}
const assertShared = (target: Table.Any | Window.Any, other: Table.Any | Window.Any, writers: string) => {
  const both = `${writers} write the same read model ${target.name}`
  if (target === other && target.shared) return
  if (!target.shared && !other.shared)
    throw new Error(`${both}; rename one of the two read models, or declare it with \`shared: true\``)
  if (target.shared !== other.shared)
    throw new Error(`${both}, but only one declares it with \`shared: true\`; declare it once and use it in both`)
  throw new Error(`${both} by two declarations; declare it once and use it in both`)
}

/** A view has a name that no read model and no other view has. */
const assertViews = (views: ReadonlyArray<View>, projections: ReadonlyArray<Projection.Any>) => {
  const taken = new Set(
    projections.flatMap(({ writes }) => writes.flatMap(({ kind, name }) => (kind === "topic" ? [] : [name])))
  )
  for (const [i, { kind, name }] of views.entries()) {
    if (kind !== "view")
      refuse("application", `element ${i} of \`views\` is no view; give what \`ReadModel.view\` declares`)
    if (taken.has(name)) refuse("application", `two read models are called ${name}; rename the view or the other one`)
    taken.add(name)
  }
}

/** A projection can read topics of the log only, not those that are on Pulsar alone. */
const assertReadable = (projections: ReadonlyArray<Projection.Any>) => {
  for (const { enrich, name, sources } of projections) {
    const read = [
      ...(sources as unknown as ReadonlyArray<Topic.Any>),
      ...Object.values(enrich).map(({ topic }) => topic)
    ]
    const unreadable = read.find(({ to }) => to?.includes("kafka") === false)
    if (unreadable !== undefined) {
      throw new Error(
        `projection ${name} reads topic ${unreadable.name}, which is on Pulsar only; declare the topic with to: ["kafka", "pulsar"]`
      )
    }
  }
}

/**
 * The events of an aggregate are a topic of its name, and its stream in the outbox has that name too. No topic and no publishing projection over
 * the aggregate may share them.
 */
const assertApart = (application: Application.Any) => {
  const aggregates = new Set(aggregatesOf(application).map(({ name }) => name))
  const runs = [...application.projections.map(({ projection }) => projection as Projection.Any), ...application.live]
  for (const projection of runs) {
    const { enrich, name } = projection
    const sources = projection.sources as unknown as ReadonlyArray<Topic.Any>
    const published = publishedBy(projection)
    const read = [...sources.filter(isTopic), ...Object.values(enrich).map(({ topic }) => topic)]
    const shared = [...read, ...published].find((topic) => aggregates.has(topic.name))
    if (shared !== undefined)
      throw new Error(
        `topic ${shared.name} of projection ${name} has the name of an aggregate, whose events are the topic ${shared.name}; rename the topic, or give the aggregate itself as source`
      )
    if (aggregates.has(name) && published.length > 0 && sources.some((source) => source.name === name))
      throw new Error(
        `projection ${name} has the name of the aggregate that it reads, and publishes to ${published[0]!.name}: its messages and the aggregate's events would be numbered in one stream; rename the projection`
      )
  }
}

/** Commands go to aggregates that the application declares or reads, for it executes them. */
const assertSent = (application: Application.Any) => {
  const aggregates = new Set(aggregatesOf(application))
  for (const { projection } of application.projections)
    for (const sent of (projection as Projection.Any).sends) {
      if (aggregates.has(sent)) continue
      const other = [...aggregates].some(({ name }) => name === sent.name)
      refuse(
        "application",
        `${projection.name} sends commands to aggregate ${sent.name}, ` +
          (other
            ? "of which the application has another declaration; declare the aggregate once and use it in both"
            : "which the application does not declare; add it to `aggregates`")
      )
    }
}

/** A topic of an application, with its number of partitions. */
export interface DeclaredTopic {
  readonly topic: Topic.Any
  readonly partitions: number
  /** The names of the projections that write it; empty for a source topic. */
  readonly writtenBy: ReadonlyArray<string>
}

/** Whether a topic, by its name, is published to a destination. A topic that the application no longer declares goes everywhere. */
export const goesTo = (application: Application.Any, where: Destination): ((topic: string) => boolean) => {
  const declared = new Map(topicsOf(application).map(({ topic }) => [topic.name, topic.to]))
  return (topic) => declared.get(topic)?.includes(where) ?? true
}

/** The topics that a projection publishes to: those in `writes`, its windows' topics, and its dead-letter topics. */
export const publishedBy = (projection: Projection.Any): ReadonlyArray<Topic.Any> => [
  ...writtenTopics(projection),
  ...deadLetterTopics(projection)
]

/** The names of the topics that a topic is derived from, through the application's projections: none for a topic that clients write. */
export const derivedFrom = (
  { projections }: Pick<Application.Any, "projections">,
  topic: string
): ReadonlySet<string> =>
  topicsBehind(
    projections.map(({ projection }) => ({
      reads: projection.sources.map(({ name }) => name),
      writes: publishedBy(projection as Projection.Any).map(({ name }) => name)
    })),
    topic
  )

const declare = (found: Map<string, DeclaredTopic>, topic: Topic.Any, partitions: number, writer?: string) => {
  const before = found.get(topic.name)
  if (before !== undefined && before.partitions !== partitions) {
    throw new Error(
      `topic ${topic.name} would need both ${before.partitions} and ${partitions} partitions; declare the topic with \`partitions\``
    )
  }
  const writtenBy = [...(before?.writtenBy ?? []), ...(writer === undefined ? [] : [writer])]
  found.set(topic.name, { topic: before?.topic ?? topic, partitions, writtenBy })
}
const isTopic = ({ kind }: { readonly kind: string }): boolean => kind === "topic"

/**
 * The aggregates of an application, each once: those that it declares, those that its projections read, and `Erasures` if one of them has
 * personal fields.
 */
export const aggregatesOf = ({ aggregates, live, projections }: Application.Any): ReadonlyArray<Aggregate.Any> => {
  const read = [...projections.map(({ projection }) => projection as Projection.Any), ...live]
  const sources = read.flatMap((projection) => projection.sources).filter((source) => !isTopic(source))
  const found = new Map<string, Aggregate.Any>()
  for (const aggregate of [...aggregates, ...(sources as unknown as ReadonlyArray<Aggregate.Any>)]) {
    const before = found.get(aggregate.name)
    if (before !== undefined && before !== aggregate)
      throw new Error(`two aggregates are called ${aggregate.name}; declare it once, or rename one of the two`)
    found.set(aggregate.name, aggregate)
  }
  if ([...found.values()].some(hasPersonalData)) found.set(Erasures.name, Erasures as unknown as Aggregate.Any)
  return [...found.values()]
}
/** How many partitions each source of an application's projections has that the application declares: its topics, and its aggregates. */
export const partitionsOf = (application: Application.Any): ReadonlyMap<string, number> =>
  new Map([
    ...topicsOf(application).map(({ partitions, topic }) => [topic.name, partitions] as const),
    ...aggregatesOf(application).map(({ name, partitions }) => [name, partitions] as const)
  ])

/**
 * Every topic that an application reads or writes, without those of its aggregates, which the event store declares. A topic that declares no number of partitions has as many as its projection's first
 * source if it is derived, and 1 otherwise. Throws if that gives a topic two different numbers.
 */
export const topicsOf = (application: Application.Any): ReadonlyArray<DeclaredTopic> => {
  const found = new Map<string, DeclaredTopic>()
  const projections = application.projections.map(({ projection }) => projection as Projection.Any)
  for (const projection of projections) {
    const { enrich, name } = projection
    const sources = projection.sources as unknown as ReadonlyArray<Topic.Any>
    const inputs = sources.filter(isTopic)
    for (const topic of [...inputs, ...Object.values(enrich).map((lookup) => lookup.topic)]) {
      if (!projections.some((other) => publishedBy(other).some((written) => written.name === topic.name))) {
        declare(found, topic, topic.partitions ?? 1)
      }
    }
    for (const topic of publishedBy(projection)) {
      declare(found, topic, topic.partitions ?? sourcePartitions(projections, sources[0]), name)
    }
  }
  return [...found.values()]
}
/** The partitions of a source, which another projection may derive in its turn. A circle of projections counts as 1. */
const sourcePartitions = (
  projections: ReadonlyArray<Projection.Any>,
  source: Topic.Any | undefined,
  depth = 0
): number => {
  if (source === undefined) return 1
  if (source.partitions !== undefined) return source.partitions
  const writer = projections.find((other) => publishedBy(other).some(({ name }) => name === source.name))
  if (writer === undefined || depth > projections.length) return 1
  return sourcePartitions(projections, writer.sources[0] as Topic.Any | undefined, depth + 1)
}
