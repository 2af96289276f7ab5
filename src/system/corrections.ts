// Publishes corrections after a promotion: for each row of a window with a topic that the new build computes otherwise, its value again.
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import { buildName, buildOf, declaredVersion } from "../model/build.ts"
import { relationOf } from "../model/columns.ts"
import { partitionOf } from "../model/partitioner.ts"
import type { Projection } from "../model/projection.ts"
import { tenantColumn } from "../model/read-model.ts"
import type { Topic } from "../model/topic.ts"
import type { Window } from "../model/window.ts"
import type { Sql } from "../postgres/client/client.ts"
import { readBuildTables } from "../postgres/store/build-tables.ts"
import { candidateOf, readBuilds } from "../postgres/store/builds.ts"
import {
  countPartitions,
  type CorrectedModel,
  type CorrectionBatch,
  hasWaiting,
  type NotedCorrections,
  noteCorrections,
  publishBatch,
  readKeys,
  readLastPromotion,
  readWaiting
} from "../postgres/store/corrections.ts"
import { relationsOf } from "../postgres/store/ddl.ts"
import { openSnapshotSession } from "../postgres/store/snapshot.ts"
import { makeNotifier } from "../postgres/relay/notify.ts"
import { NotCorrected } from "./errors.ts"
import type { PromoteRequest } from "./promote.ts"

/** The headers of a correction, beside those of every message. They are public: consumers read them. */
export const correctionHeaders = {
  /** 1 for what the first live build published, and one more after each promotion of the projection. */
  revision: "millrace-revision",
  /** The build whose message of the row this one replaces, `<projection>_v<build>`. */
  corrects: "millrace-corrects"
} as const

/** What was corrected. */
export interface Corrected extends NotedCorrections {
  /** Messages that this call published; earlier calls may have published the others. */
  readonly published: number
  /** Windows and topics whose messages are not corrected, and why. */
  readonly notCorrected: ReadonlyArray<{ readonly name: string; readonly reason: string }>
}

/** A window that publishes its rows, and the column whose value is the key of the row's events. */
interface PublishingWindow {
  readonly window: Window.Any
  readonly topic: Topic.Any
  readonly fields: ReadonlyArray<string>
  readonly owner: string | undefined
  /** The column that is a row's tenant; undefined if none is. */
  readonly tenant: string | undefined
}
const ownerOf = ({ key }: Window.Any, sources: ReadonlyArray<Topic.Any>): string | undefined => {
  if (key.length === 1) return key[0]
  const named = key.filter((name) => sources.every(({ keyField }) => keyField === name))
  return named.length === 1 ? named[0] : undefined
}
const publishingWindows = (projection: Projection.Any): ReadonlyArray<PublishingWindow> =>
  (projection.writes as ReadonlyArray<Window.Any>)
    .filter(({ kind, shared }) => kind === "window" && !shared)
    .flatMap((window) => {
      const { topic } = window
      if (topic === undefined) return []
      const fields = (topic as { readonly fields?: ReadonlyArray<string> }).fields
      const all = relationOf(window).columns.map(({ name }) => name)
      return [
        {
          window,
          topic: topic as Topic.Any,
          fields: fields === undefined ? all : all.filter((name) => fields.includes(name)),
          tenant: [window.tenant ?? tenantColumn].find((name) => window.key.includes(name)),
          owner: ownerOf(window, projection.sources as ReadonlyArray<Topic.Any>)
        }
      ]
    })

/** How long a frozen partition is waited for, in milliseconds. */
const patienceMs = 30_000

/** What corrections are published with. */
interface CorrectionsContext {
  readonly application: Pick<Application.Any, "projections">
  readonly sql: Sql
}
/** The last promotion of a projection and the build that it made live. Fails with `NotCorrected` if that is not the live one, or not configured. */
const promotedOf = Effect.fnUntraced(function* ({ application, sql }: CorrectionsContext, name: string) {
  const promotion = yield* readLastPromotion(sql, name)
  if (promotion === undefined)
    return yield* new NotCorrected({
      message: `projection ${name} was never promoted, so nothing is to correct`,
      try: `millrace promote ${name} --publish corrections, once it has a candidate`
    })
  const builds = yield* readBuilds(sql, name)
  const live = builds.find((build) => build.live)
  const advice = "run the command with the configuration of the live build"
  if (live?.number !== promotion.new)
    return yield* new NotCorrected({
      message: `build ${promotion.new} of projection ${name}, which was promoted last, is not the live one`,
      try: advice
    })
  const declared = declaredVersion(application, name, live.declared)
  if (declared === undefined)
    return yield* new NotCorrected({
      message: `the configuration does not have version ${live.declared} of projection ${name}, which is live`,
      try: advice
    })
  const isOldDropped = builds.find(({ number }) => number === promotion.old)?.dropped !== false
  if (promotion.corrections === null && isOldDropped)
    return yield* new NotCorrected({
      message: `the tables of build ${promotion.old} of projection ${name} were dropped, so it is unknown what it published`,
      try: "publish corrections before retiring the build that was replaced"
    })
  return { promotion, build: buildOf(declared, live.number) }
})

/**
 * Whether a command that publishes corrections promotes nothing: those of the last promotion are not finished, or the build that is asked for, or gone
 * back to, is live already. A repeated way back would be the way forward, so it only corrects.
 */
export const correctsLastPromotion = Effect.fnUntraced(function* (
  sql: Sql,
  { build, name, rollback }: Pick<PromoteRequest, "build" | "name" | "rollback">
) {
  const last = yield* readLastPromotion(sql, name)
  if (last !== undefined && last.corrections !== null && (yield* hasWaiting(sql, last.token))) return true
  if (rollback) return last !== undefined && last.new < last.old
  const builds = yield* readBuilds(sql, name)
  if (build !== undefined) return builds.some(({ live, number }) => live && number === build)
  return candidateOf(builds) === undefined
})

/** Publishes a batch, as soon as its partition can publish. */
const publishOnce = Effect.fnUntraced(function* (sql: Sql, token: string, batch: CorrectionBatch) {
  const deadline = performance.now() + patienceMs
  while (true) {
    const messages = yield* publishBatch(sql, token, batch)
    if (messages !== undefined) return messages
    const { build, partition, projection, topic } = batch.stream
    if (performance.now() > deadline)
      return yield* new NotCorrected({
        message: `build ${build} of projection ${projection} cannot publish now: partition ${partition} of ${topic} is frozen, or the build is not live any more`,
        try: "run the command again: it goes on where it stopped"
      })
    yield* Effect.sleep(100)
  }
})

/**
 * Publishes the corrections of the projection's last promotion. Which rows differ is found once, and noted; a call after a crash continues with
 * those that were not published, so each row is corrected once. Fails with `NotCorrected` if that is not possible.
 */
export const publishCorrections = Effect.fnUntraced(function* (
  context: CorrectionsContext,
  name: string,
  /** How many rows are published in one transaction at most. */
  batchRows = 500
) {
  const { sql } = context
  const { build, promotion } = yield* promotedOf(context, name)
  const windows = publishingWindows(build)
  const relations = new Map(relationsOf(build).map((relation) => [relation.name, relation]))
  const { models, notCorrected } = yield* comparedModels(sql, build, windows, promotion.old)
  const noted = promotion.corrections ?? (yield* noteCorrections(sql, name, promotion, models))
  const headers = {
    [correctionHeaders.revision]: String(noted.revision),
    [correctionHeaders.corrects]: buildName({ name, version: promotion.old })
  }
  // windows that are published have one source
  const { name: topic } = build.sources[0]!
  const partitions = yield* countPartitions(sql, name, build.version, topic)
  const notify = makeNotifier(sql)
  let published = 0
  while (true) {
    const waiting = yield* readWaiting(sql, promotion.token, batchRows)
    if (waiting === undefined) return { ...noted, published, notCorrected } satisfies Corrected
    const window = windows.find((one) => one.window.name === waiting.model)!
    const relation = relations.get(waiting.model)!
    const keys = yield* readKeys(sql, relation, waiting.keys)
    for (const [partition, rows] of byPartition(window, waiting.keys, keys, partitions)) {
      const stream = { projection: name, build: build.version, topic, partition }
      const target = window.topic.name
      published += yield* publishOnce(sql, promotion.token, {
        stream,
        relation,
        target,
        fields: window.fields,
        rows,
        headers
      })
      notify()
    }
  }
})

/** The windows whose rows are compared, and what is not corrected. */
const comparedModels = Effect.fnUntraced(function* (
  sql: Sql,
  build: Projection.Any,
  windows: ReadonlyArray<PublishingWindow>,
  old: number
) {
  const tables = yield* Effect.scoped(
    Effect.flatMap(openSnapshotSession(sql), (one) =>
      readBuildTables(one, build.name, { live: old, candidate: build.version })
    )
  )
  const notCorrected: Array<{ readonly name: string; readonly reason: string }> = []
  const models: Array<CorrectedModel> = []
  for (const { fields, owner, window } of windows) {
    const table = tables.find((one) => one.name === window.name)
    const reason =
      owner === undefined
        ? "its key has several columns, and none is named as the key of the events, so the partition that publishes a row is unknown"
        : table?.comparedWithAdded === undefined
          ? (table?.notCompared ?? "it has no table")
          : undefined
    if (reason !== undefined) {
      notCorrected.push({ name: window.name, reason })
      continue
    }
    // messages of the old build have none of the added columns
    const { columns, ...same } = table!.comparedWithAdded!
    models.push({
      name: window.name,
      relations: { ...same, columns: columns.filter((column) => fields.includes(column.name)) }
    })
  }
  for (const { kind, name } of build.writes as ReadonlyArray<{ readonly kind: string; readonly name: string }>) {
    if (kind === "topic")
      notCorrected.push({ name, reason: "handlers publish it, and no row says what they published" })
  }
  return { models, notCorrected }
})

/** The rows by the partition that writes them: that of their events' key. Rows that do not exist any more are in partition 0, which has no message for them. */
const byPartition = (
  { owner, tenant, topic }: PublishingWindow,
  texts: ReadonlyArray<ReadonlyArray<string>>,
  keys: ReadonlyArray<Readonly<Record<string, unknown>> | undefined>,
  partitions: number
) => {
  const rows = new Map<number, Array<CorrectionBatch["rows"][number]>>()
  for (const [i, key] of texts.entries()) {
    const values = keys[i]
    const partition = values === undefined ? 0 : partitionOf(String(values[owner!]), partitions)
    const messageKey = values === undefined ? "" : topic.keyOf(values as never)
    const found = rows.get(partition) ?? []
    const tenantName = tenant === undefined ? undefined : values?.[tenant]
    found.push({ key, messageKey, tenant: typeof tenantName === "string" ? tenantName : undefined })
    rows.set(partition, found)
  }
  return rows
}
