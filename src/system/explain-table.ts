// Finds the read model, the row and the build that a person names, and explains the row in each projection that writes it.
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import { type Relation, relationOf } from "../model/columns.ts"
import type { Projection } from "../model/projection.ts"
import type { Row } from "../model/recorder.ts"
import type { Table } from "../model/read-model.ts"
import type { Window } from "../model/window.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import { readBuilds, type StoredBuild } from "../postgres/store/builds.ts"
import { readNeighbours } from "../postgres/store/row-history.ts"
import { WatchedRow } from "../runner/row-watch.ts"
import { adviceFor } from "../text/similar-names.ts"
import { InvalidOperation, NotExplained, UnknownName, UnknownRow } from "./errors.ts"
import { type ExplainContext, type ExplainRequest, explainRow, type RowExplanation } from "./explain.ts"
import { NoRowKey, rowKeyOf } from "./row-key.ts"
import { withServices } from "./services.ts"

const invalid = (message: string, advice: string | undefined) =>
  new InvalidOperation({ message, ...(advice !== undefined && { try: advice }) })
const unknown = (message: string, advice: string | undefined) =>
  new UnknownName({ message, ...(advice !== undefined && { try: advice }) })

/** The values that `window_size` has in a window's rows; undefined if they have no such column. */
const sizesOf = (target: Table.Any | Window.Any): ReadonlyArray<string> | undefined => {
  if (target.kind === "table" || target.shape.type === "global" || target.shape.type === "session") return undefined
  return target.shape.type === "calendar" ? target.shape.units : target.shape.spans.map(({ label }) => label)
}

/** A read model, and what writes it. */
export interface FoundReadModel {
  readonly target: Table.Any | Window.Any
  /** The projections that write it: of each the versions that the application declares. */
  readonly projections: ReadonlyArray<ReadonlyArray<Projection.Any>>
  /** The build that was asked for. */
  readonly build: { readonly projection: string; readonly number: number } | undefined
}
/** The read model with this name, and the projections that write it. */
const readModelOf = Effect.fnUntraced(function* (
  application: Application.Any,
  text: string
): Effect.fn.Return<FoundReadModel, UnknownName> {
  const [, projection, number, name = text] = /^(?:(\w+)_v(\d+)\.)?(\w+)$/.exec(text) ?? []
  const all = application.projections.map((one) => one.projection as Projection.Any)
  const writers = all.flatMap((one) =>
    (one.writes as ReadonlyArray<Table.Any | Window.Any>)
      .filter((target) => (target.kind === "table" || target.kind === "window") && target.name === name)
      .map((target) => ({ target, projection: one }))
  )
  const [first] = writers
  if (first === undefined) {
    const names = all.flatMap((one) => one.writes.flatMap((target) => (target.kind === "topic" ? [] : [target.name])))
    return yield* unknown(
      `the application has no table and no window called '${name}'`,
      adviceFor(name, [...new Set(names as ReadonlyArray<string>)].toSorted())
    )
  }
  const build = projection === undefined ? undefined : { projection, number: Number(number) }
  const asked = writers.filter((one) => build === undefined || one.projection.name === build.projection)
  if (asked.length === 0)
    return yield* unknown(
      `projection ${projection} writes no ${name}`,
      `one of ${writers.map((one) => `${one.projection.name}_v${one.projection.version}.${name}`).join(", ")}`
    )
  const byName = Map.groupBy(asked, (one) => one.projection.name)
  const projections = [...byName.values()].map((versions) => versions.map((one) => one.projection))
  return { target: asked[0]!.target, projections, build }
})

/** The build that is asked for, by default the live one, and the declaration that it is a build of. */
export const buildOfTable = Effect.fnUntraced(function* (
  sql: Sql,
  versions: ReadonlyArray<Projection.Any>,
  asked: FoundReadModel["build"]
): Effect.fn.Return<
  { readonly build: StoredBuild; readonly projection: Projection.Any },
  UnknownName | NotExplained | SqlError
> {
  const { name } = versions[0]!
  const builds = (yield* readBuilds(sql, name)).filter(({ dropped }) => !dropped)
  const build = builds.find(({ live, number }) => (asked === undefined ? live : number === asked.number))
  if (build === undefined) {
    const advice =
      builds.length === 0
        ? "millrace migrate, or start the application with millrace dev or millrace start"
        : `one of ${builds.map(({ number }) => `${name}_v${number}`).join(", ")}`
    if (asked !== undefined) return yield* unknown(`projection ${name} has no build ${asked.number}`, advice)
    return yield* new NotExplained({ message: `projection ${name} has no live build in this database`, try: advice })
  }
  const projection = versions.find(({ version }) => version === build.declared)
  if (projection !== undefined) return { build, projection }
  return yield* new NotExplained({
    message: `build ${build.number} of projection ${name} is of version ${build.declared}, which the configuration does not have`,
    try: `name a configuration that has version ${build.declared} with --config`
  })
})

/** A row that is to be explained. */
export interface ExplainedRow {
  readonly found: FoundReadModel
  readonly row: WatchedRow
}
/**
 * The read model with a name, `TABLE` or `PROJECTION_vN.TABLE`, and its row with a key: the value, if the key has one column; one JSON object; or
 * `column=value` for each column. Fails with `UnknownName` or `InvalidOperation`.
 */
export const explainedRow = Effect.fnUntraced(function* (
  application: Application.Any,
  table: string,
  key: ReadonlyArray<string>
): Effect.fn.Return<ExplainedRow, UnknownName | InvalidOperation> {
  const found = yield* readModelOf(application, table)
  const given = rowKeyOf(relationOf(found.target), key)
  if (given instanceof NoRowKey) return yield* invalid(given.message, given.advice)
  const sizes = sizesOf(found.target)
  if (sizes !== undefined && !sizes.includes(given["window_size"] as string))
    return yield* invalid(
      `${found.target.name} has no windows of the size '${String(given["window_size"])}'`,
      `one of ${sizes.join(", ")}`
    )
  const row = yield* Effect.try({
    try: () => new WatchedRow(found.target, given),
    catch: (cause) =>
      invalid(`no row of ${found.target.name} can have this key: ${(cause as Error).message}`, undefined)
  })
  return { found, row }
})

/** What is read, and how it is shown. */
export interface ExplainTableOptions extends Pick<ExplainRequest, "from" | "until" | "mostEvents"> {
  /** What is called from time to time while a projection is replayed. */
  readonly onProgress: (projection: string) => NonNullable<ExplainRequest["onProgress"]>
  /** A key as a text for people. */
  readonly keyText: (relation: Relation, key: Row) => string
}
/** Explains a row in each projection that writes it. Fails with `UnknownRow` if no event concerns it and there is no such row. */
export const explainTableRow = Effect.fnUntraced(function* (
  context: ExplainContext,
  { found, row }: ExplainedRow,
  { keyText, onProgress, ...range }: ExplainTableOptions
) {
  const { application, sql } = context
  const explanations: Array<RowExplanation> = []
  for (const versions of found.projections) {
    const { build, projection } = yield* buildOfTable(sql, versions, found.build)
    // another version may have other columns
    const target = projection.writes.find(({ name }) => name === row.target.name) as Table.Any | Window.Any
    const request = {
      ...range,
      build,
      projection,
      row: new WatchedRow(target, row.key),
      onProgress: onProgress(projection.name)
    }
    explanations.push(yield* withServices(application, explainRow(context, request)))
  }
  const isUnknown = explanations.every(
    ({ events, replayed, stored }) => events.length === 0 && replayed === undefined && stored === undefined
  )
  if (!isUnknown) return explanations
  const [{ build, projection }] = explanations as [RowExplanation]
  const declared = found.projections[0]![0]!
  const near = yield* readNeighbours(sql, { ...declared, version: build }, row.target.name, row.key)
  const keys = near.map((key) => keyText(row.relation, key))
  return yield* new UnknownRow({
    message: `no event that ${projection} processed concerns the row ${keyText(row.relation, row.key)} of ${row.target.name}, and there is no such row`,
    ...(keys.length > 0 && { try: `one of the keys next to it: ${keys.join("; ")}` })
  })
})
