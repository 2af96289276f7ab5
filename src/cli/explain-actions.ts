// Runs `millrace explain`: finds the row's read model and build, replays its projection in memory, and prints the explanation.
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import { relationOf } from "../model/columns.ts"
import type { Projection } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import type { Window } from "../model/window.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import { readBuilds, type StoredBuild } from "../postgres/store/builds.ts"
import { readNeighbours } from "../postgres/store/row-history.ts"
import { WatchedRow } from "../runner/row-watch.ts"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { explainRow, type RowExplanation } from "../system/explain.ts"
import { withServices } from "../system/services.ts"
import { assertRegistered } from "../system/identity.ts"
import { openLog } from "../system/open-log.ts"
import { asUnprepared, CommandFailed, exitCodes, usageError } from "./command-failure.ts"
import { loadApplication } from "./config.ts"
import { explanationJson, explanationText, jsonText, keyArguments } from "./explanation-text.ts"
import { print } from "./print.ts"
import { NoRowKey, rowKeyOf } from "./row-key.ts"
import { adviceFor } from "../text/similar-names.ts"
import { timeOf } from "./time.ts"

/** The flags and arguments of the command. */
export interface ExplainFlags {
  readonly data: string
  readonly config: string | undefined
  readonly table: string
  readonly key: ReadonlyArray<string>
  /** Durations before now, or dates. */
  readonly from: string | undefined
  readonly until: string | undefined
  readonly limit: number
  readonly json: boolean
}
/** How often progress is printed, in milliseconds. */
const progressMs = 2_000

/** Explains a row, and prints the events. Exits with 3 if the stored row is another one than the replay gives. */
export const explain = Effect.fnUntraced(function* (flags: ExplainFlags) {
  const { config, data, json, key, limit, table } = flags
  if (!(limit >= 1)) return yield* usageError(`--limit is ${limit}; it must be at least 1`, "--limit 1000")
  const from = yield* momentOf("--from", flags.from)
  const until = yield* momentOf("--until", flags.until)
  const application = yield* loadApplication(config)
  const found = yield* readModelOf(application, table)
  const given = rowKeyOf(relationOf(found.target), key)
  if (given instanceof NoRowKey) return yield* usageError(given.message, given.advice)
  const sizes = sizesOf(found.target)
  if (sizes !== undefined && !sizes.includes(given["window_size"] as string))
    return yield* usageError(
      `${found.target.name} has no windows of the size '${String(given["window_size"])}'`,
      `one of ${sizes.join(", ")}`
    )
  const row = yield* Effect.try({
    try: () => new WatchedRow(found.target, given),
    catch: (cause) => usageError(`no row of ${found.target.name} can have this key: ${(cause as Error).message}`)
  })
  yield* assertDatabaseExists(data)
  const { sql } = yield* openDatabase(data, "join", { max: 3 })
  yield* assertRegistered(application, sql)
  const { log } = yield* openLog(Effect.succeed(sql))
  const context = { application, sql, log }
  const explanations: Array<RowExplanation> = []
  for (const versions of found.projections) {
    const { build, projection } = yield* buildOfTable(sql, versions, found.build)
    // another version may have other columns
    const target = projection.writes.find(({ name }) => name === row.target.name) as Table.Any | Window.Any
    const request = {
      build,
      projection,
      row: new WatchedRow(target, given),
      from,
      until,
      mostEvents: limit,
      onProgress: progressOf(projection.name)
    }
    explanations.push(
      yield* withServices(application, explainRow(context, request)).pipe(Effect.mapError(asUnprepared))
    )
  }
  if (
    explanations.every(
      ({ events, replayed, stored }) => events.length === 0 && replayed === undefined && stored === undefined
    )
  )
    return yield* noSuchRow(sql, row, explanations[0]!, found.projections[0]![0]!)
  yield* print(json ? jsonText(explanations.map(explanationJson)) : explanations.map(explanationText).join("\n\n"))
  const differs = explanations.some(({ differences = [] }) => differences.some(({ isRounding }) => !isRounding))
  return differs ? exitCodes.unhealthy : 0
})

/** Nothing of the log concerns the row: names rows with similar keys. */
const noSuchRow = Effect.fnUntraced(function* (
  sql: Sql,
  row: WatchedRow,
  { build, projection }: RowExplanation,
  declared: Projection.Any
) {
  const near = yield* readNeighbours(sql, { ...declared, version: build }, row.target.name, row.key)
  const keys = near.map((key) => keyArguments(row.relation, key))
  return yield* new CommandFailed({
    message: `no event that ${projection} processed concerns the row ${keyArguments(row.relation, row.key)} of ${row.target.name}, and there is no such row`,
    ...(keys.length > 0 && { try: `one of the keys next to it: ${keys.join("; ")}` })
  })
})

/** The values that `window_size` has in a window's rows; undefined if they have no such column. */
const sizesOf = (target: Table.Any | Window.Any): ReadonlyArray<string> | undefined => {
  if (target.kind === "table" || target.shape.type === "global" || target.shape.type === "session") return undefined
  return target.shape.type === "calendar" ? target.shape.units : target.shape.spans.map(({ label }) => label)
}

const momentOf = (flag: string, text: string | undefined) => {
  const time = text === undefined ? undefined : timeOf(text, Date.now())
  return text !== undefined && time === undefined
    ? Effect.fail(
        usageError(
          `${flag} '${text}' is neither a duration nor a date`,
          `${flag} "2 hours", or ${flag} 2026-01-31T12:00Z`
        )
      )
    : Effect.succeed(time)
}

interface FoundReadModel {
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
): Effect.fn.Return<FoundReadModel, CommandFailed> {
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
    return yield* usageError(
      `the application has no table and no window called '${name}'`,
      adviceFor(name, [...new Set(names as ReadonlyArray<string>)].toSorted())
    )
  }
  const build = projection === undefined ? undefined : { projection, number: Number(number) }
  const asked = writers.filter((one) => build === undefined || one.projection.name === build.projection)
  if (asked.length === 0)
    return yield* usageError(
      `projection ${projection} writes no ${name}`,
      `one of ${writers.map((one) => `${one.projection.name}_v${one.projection.version}.${name}`).join(", ")}`
    )
  const byName = Map.groupBy(asked, (one) => one.projection.name)
  const projections = [...byName.values()].map((versions) => versions.map((one) => one.projection))
  return { target: asked[0]!.target, projections, build }
})

/** The build that is asked for, by default the live one, and the declaration that it is a build of. */
const buildOfTable = Effect.fnUntraced(function* (
  sql: Sql,
  versions: ReadonlyArray<Projection.Any>,
  asked: FoundReadModel["build"]
): Effect.fn.Return<{ readonly build: StoredBuild; readonly projection: Projection.Any }, CommandFailed | SqlError> {
  const { name } = versions[0]!
  const builds = (yield* Effect.mapError(readBuilds(sql, name), asUnprepared)).filter(({ dropped }) => !dropped)
  const build = builds.find(({ live, number }) => (asked === undefined ? live : number === asked.number))
  if (build === undefined)
    return yield* new CommandFailed({
      message:
        asked === undefined
          ? `projection ${name} has no live build in this database`
          : `projection ${name} has no build ${asked.number}`,
      ...(asked !== undefined && { exitCode: exitCodes.usage }),
      try:
        builds.length === 0
          ? "millrace migrate, or start the application with millrace dev or millrace start"
          : `one of ${builds.map(({ number }) => `${name}_v${number}`).join(", ")}`
    })
  const projection = versions.find(({ version }) => version === build.declared)
  if (projection !== undefined) return { build, projection }
  return yield* new CommandFailed({
    message: `build ${build.number} of projection ${name} is of version ${build.declared}, which the configuration does not have`,
    try: `name a configuration that has version ${build.declared} with --config`
  })
})

/** Prints on standard error how far the replay is, if it takes long. */
const progressOf = (name: string) => {
  let last = Date.now()
  return (done: number, total: number) => {
    if (Date.now() - last < progressMs) return
    last = Date.now()
    process.stderr.write(`millrace: replayed ${done} of ${total} records of ${name}\n`)
  }
}
