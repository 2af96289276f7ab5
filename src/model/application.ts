// An application is what `millrace.config.ts` exports: its projections and aggregates, and the services that their handlers need.
import type * as Layer from "effect/Layer"
import type { Aggregate } from "./aggregate.ts"
import { deadLetterTopics } from "./dead-letter-topic.ts"
import type { Writable } from "./handler.ts"
import type { Projection, Run } from "./projection.ts"
import type { Table } from "./read-model.ts"
import type { Tenancy } from "./tenancy.ts"
import type { Destination, Topic } from "./topic.ts"
import type { Window } from "./window.ts"

/** What `millrace.config.ts` exports; the CLI, the server and the tests read it. */
export interface Application<out E, in out R> {
  readonly name: string
  readonly aggregates: ReadonlyArray<Aggregate.Any>
  readonly projections: ReadonlyArray<Run<E, R>>
  readonly services: Layer.Layer<R> | undefined
  /** Who gets its derived topics on Pulsar. */
  readonly pulsar: Tenancy | undefined
}
export declare namespace Application {
  /** Of any errors and services. */
  type Any = Omit<Application<unknown, never>, "services"> & { readonly services: Layer.Layer<never> | undefined }
}
type RunError<P> = P extends ReadonlyArray<Run<infer E, any>> ? E : never
type RunServices<P> = P extends ReadonlyArray<Run<any, infer R>> ? R : never
type Provided<R> = [R] extends [never] ? { readonly services?: undefined } : { readonly services: Layer.Layer<R> }
export const Application = {
  /** `services` is asked for if, and only if, a handler needs some. */
  make: <const P extends ReadonlyArray<Run<any, any>>>(
    options: {
      readonly name: string
      readonly aggregates?: ReadonlyArray<Aggregate.Any>
      readonly projections: P
      readonly pulsar?: Tenancy
    } & Provided<RunServices<P>>
  ): Application<RunError<P>, RunServices<P>> => {
    const projections = options.projections.map(({ projection }) => projection as Projection.Any)
    assertDistinct(projections)
    assertReadable(projections)
    return { aggregates: [], pulsar: undefined, ...options } as never
  }
}

/** A read model has one projection as its owner, of which there may be several versions, or is shared by all that write it. */
const assertDistinct = (projections: ReadonlyArray<Projection.Any>) => {
  const versions = new Set<string>()
  const owners = new Map<string, { readonly target: Table.Any | Window.Any; readonly projection: string }>()
  for (const { name, version, writes } of projections) {
    if (versions.has(`${name} ${version}`)) {
      throw new Error(
        `there are two projections ${name} of version ${version}; give one of them another name, or the next version`
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
  const both = `${writers} both write the read model ${target.name}`
  if (target === other && target.shared) return
  if (!target.shared && !other.shared)
    throw new Error(`${both}; give one of the two another name, or say \`shared: true\``)
  if (target.shared !== other.shared)
    throw new Error(`${both}, and only one says \`shared: true\`; define it once and use it in both`)
  throw new Error(`${both}, each a definition of its own; define it once and use it in both`)
}

/** What a projection reads must be in the log. */
const assertReadable = (projections: ReadonlyArray<Projection.Any>) => {
  for (const { enrich, name, sources } of projections) {
    const read = [
      ...(sources as unknown as ReadonlyArray<Topic.Any>),
      ...Object.values(enrich).map(({ topic }) => topic)
    ]
    const lost = read.find(({ to }) => to?.includes("kafka") === false)
    if (lost !== undefined)
      throw new Error(`projection ${name} reads ${lost.name}, which goes to Pulsar alone; say to: ["kafka", "pulsar"]`)
  }
}

/** A topic of an application, and how many partitions it has. */
export interface DeclaredTopic {
  readonly topic: Topic.Any
  readonly partitions: number
  /** The projections that write it; none for a topic that events come in by. */
  readonly writtenBy: ReadonlyArray<string>
}

/** Whether a topic goes there, by its name. What no projection of the application writes any more goes everywhere. */
export const goesTo = (application: Application.Any, where: Destination): ((topic: string) => boolean) => {
  const declared = new Map(topicsOf(application).map(({ topic }) => [topic.name, topic.to]))
  return (topic) => declared.get(topic)?.includes(where) ?? true
}

/** The topics that a projection writes: those in `writes`, its windows' own, and those of its dead letters. */
export const publishedBy = (projection: Projection.Any): ReadonlyArray<Topic.Any> => [
  ...(projection.writes as ReadonlyArray<Writable>).flatMap((target) =>
    target.kind === "topic" ? [target] : target.kind === "window" && target.topic !== undefined ? [target.topic] : []
  ),
  ...deadLetterTopics(projection)
]

const declare = (found: Map<string, DeclaredTopic>, topic: Topic.Any, partitions: number, writer?: string) => {
  const before = found.get(topic.name)
  if (before !== undefined && before.partitions !== partitions) {
    throw new Error(
      `topic ${topic.name} would have ${before.partitions} partitions here and ${partitions} there; say \`partitions\` where it is defined`
    )
  }
  const writtenBy = [...(before?.writtenBy ?? []), ...(writer === undefined ? [] : [writer])]
  found.set(topic.name, { topic: before?.topic ?? topic, partitions, writtenBy })
}
/**
 * Every topic that an application reads or writes. A derived topic that does not say has as many partitions as its projection's
 * first source; another one has 1. Throws where two places disagree.
 */
export const topicsOf = (application: Application.Any): ReadonlyArray<DeclaredTopic> => {
  const found = new Map<string, DeclaredTopic>()
  const projections = application.projections.map(({ projection }) => projection as Projection.Any)
  for (const projection of projections) {
    const { enrich, name, sources } = projection
    const inputs = sources.filter((source) => source.kind === "topic") as unknown as ReadonlyArray<Topic.Any>
    for (const topic of [...inputs, ...Object.values(enrich).map((lookup) => lookup.topic)]) {
      if (!projections.some((other) => publishedBy(other).some((written) => written.name === topic.name))) {
        declare(found, topic, topic.partitions ?? 1)
      }
    }
    for (const topic of publishedBy(projection)) {
      declare(found, topic, topic.partitions ?? sourcePartitions(projections, inputs[0]), name)
    }
  }
  return [...found.values()]
}
/** A projection may read what another derives, and so on; a ring of them has no number. */
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
