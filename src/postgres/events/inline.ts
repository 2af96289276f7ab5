// The inline projections of a database's aggregates, as this process knows them: which builds appends must write for, and the rows of a statement.
import * as Effect from "effect/Effect"
import type { Append, Expected } from "../../aggregate/event-store.ts"
import { InlineFailed, InlineMissing } from "../../aggregate/errors.ts"
import { foldInline, prepareInline } from "../../aggregate/inline.ts"
import type { Application } from "../../model/application.ts"
import { buildOf, declaredVersion } from "../../model/build.ts"
import type { Projection } from "../../model/projection.ts"
import type { RowReader } from "../../runner/needed-rows.ts"
import { StoreError } from "../../runner/store.ts"
import { answered } from "../client/answer.ts"
import type { Sql } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import { query } from "../client/errors.ts"
import { readRowsStatement } from "../store/read-rows.ts"
import { type AppendRow, expectExists } from "./append-sql.ts"
import { answerMs } from "./errors.ts"
import type { InlineTopicChanges } from "./inline-sql.ts"

/** The inline builds of a topic. */
interface TopicBuilds {
  /** As the topic's counters have it, which appends name; null if it never had an inline build. */
  readonly text: string | null
  readonly builds: ReadonlyArray<Projection.Any>
  /** A build whose code is not in this process. */
  readonly missing: { readonly name: string; readonly version: number } | undefined
}
/** A version that no stream has. */
const noVersion = Number.MAX_SAFE_INTEGER
const noBuilds: TopicBuilds = { text: null, builds: [], missing: undefined }

/** What a statement writes for inline builds. */
export interface InlineStatement {
  /** Why appends cannot be made, by their index. Not empty: the statement must be made without them. */
  readonly failed: ReadonlyMap<number, InlineFailed | InlineMissing>
  readonly changes: ReadonlyArray<InlineTopicChanges>
  /** The rows to send: where the rows of a build depend on stored ones, the append expects the version that those are of. */
  readonly rows: ReadonlyArray<AppendRow>
  /** The text of the builds of each topic. */
  readonly texts: ReadonlyMap<number, string | null>
}
/** What stands for the builds of a topic where an append must not be made, but only its answer found. */
export const answerOnly = "answer only"

/** The names of the builds that a statement writes for; empty if there are none. */
export const namesOf = ({ changes }: InlineStatement) => changes.map(({ build }) => build.name).join(", ")
/** PostgreSQL refuses the rows of inline projections; of several it does not say which one's. */
export const inlineFailure = ({ aggregate, stream }: Append, projection: string, reason: string) =>
  new InlineFailed({ aggregate, stream, projection, reason })

/** Whether a stream of this version is as it was expected to be. */
export const isExpected = (expected: Expected, version: number): boolean =>
  expected === "any" || (expected === "exists" ? version > 0 : version === (expected === "noStream" ? 0 : expected))

/** Computes the rows of inline projections. */
export class InlineWriter {
  private readonly sql: Sql
  private readonly application: Pick<Application.Any, "projections">
  private readonly topics = new Map<number, TopicBuilds>()

  /** `application` has the code of the projections. */
  constructor(sql: Sql, application: Pick<Application.Any, "projections">) {
    this.sql = sql
    this.application = application
  }

  /** Takes notice of the builds of a topic: the detail of an error with the code `otherInlineCode`. */
  learn(detail: string): void {
    const { inline, topic_id: topicId } = JSON.parse(detail) as {
      readonly topic_id: number
      readonly inline: string | null
    }
    if (inline === null) return void this.topics.delete(topicId)
    const { builds } = JSON.parse(inline) as {
      readonly builds: ReadonlyArray<readonly [name: string, number: number, declared: number]>
    }
    const found = builds.map(([name, number, declared]) => {
      const projection = declaredVersion(this.application, name, declared)
      return projection && buildOf(projection, number)
    })
    const at = found.indexOf(undefined)
    this.topics.set(topicId, {
      text: inline,
      builds: found.filter((build) => build !== undefined),
      missing: at === -1 ? undefined : { name: builds[at]![0], version: builds[at]![2] }
    })
  }

  /** The rows of the builds for appends. Rejects with an error of the database. */
  async prepare(rows: ReadonlyArray<AppendRow>): Promise<InlineStatement> {
    const topics = new Map(rows.map(({ topic, topicId }) => [topicId, topic]))
    const texts = new Map([...topics.keys()].map((id) => [id, this.of(id).text]))
    const failed = new Map<number, InlineFailed | InlineMissing>()
    for (const [i, { topic: aggregate, topicId }] of rows.entries()) {
      const { missing } = this.of(topicId)
      if (missing === undefined) continue
      const { name: projection, version } = missing
      failed.set(i, new InlineMissing({ aggregate, projection, version }))
    }
    // the next append asks the database again: the build may have been retired meanwhile
    for (const i of failed.keys()) this.topics.delete(rows[i]!.topicId)
    const builds = [...topics.keys()].flatMap((id) => this.of(id).builds)
    if (failed.size > 0 || builds.length === 0) return { failed, changes: [], rows, texts }
    const appends = rows.map(({ logRecords, stream, topic }) => ({ aggregate: topic, stream, records: logRecords }))
    const prepared = prepareInline(builds, appends, Date.now())
    if (prepared.failed.size > 0) return { failed: prepared.failed, changes: [], rows, texts }
    // before the rows are read: they are then at least as new as the version that the append expects
    const pinned = await this.pinned(rows, prepared.readingRows)
    const folded = await Effect.runPromise(Effect.result(foldInline(prepared, appends, this.reader)))
    if (folded._tag === "Failure") throw "cause" in folded.failure ? folded.failure.cause : folded.failure
    const { changes, failed: refused } = folded.success
    const topicOf = new Map([...topics].map(([topicId, topic]) => [topic, topicId]))
    return {
      failed: refused,
      changes: changes.map(({ build, tables, windows }) => {
        const topic = build.sources[0]!.name
        return { build, tables, windows, topic, topicId: topicOf.get(topic)! }
      }),
      rows: pinned,
      texts
    }
  }

  private of(topicId: number): TopicBuilds {
    return this.topics.get(topicId) ?? noBuilds
  }
  /** Appends that expect no version and whose rows depend on stored ones expect the version that the stream has now. */
  private async pinned(
    rows: ReadonlyArray<AppendRow>,
    reading: ReadonlySet<number>
  ): Promise<ReadonlyArray<AppendRow>> {
    const open = rows.filter(({ expected }, i) => expected < 0 && reading.has(i))
    if (open.length === 0) return rows
    const found = await answered(
      this.sql<Array<{ readonly topic_id: number; readonly stream: string; readonly version: number }>>`
        select s.topic_id, s.stream, s.version from unnest(${arrayOf(open.map(({ topicId }) => topicId))}::int4[],
          ${arrayOf(open.map(({ stream }) => stream))}::text[]) as r(topic_id, stream)
        join millrace.event_stream s using (topic_id, stream)`,
      answerMs
    )
    const versions = new Map(found.map(({ stream, topic_id, version }) => [`${topic_id} ${stream}`, version]))
    return rows.map((row, i) => {
      const version = versions.get(`${row.topicId} ${row.stream}`) ?? 0
      if (row.expected >= 0 || !reading.has(i)) return row
      // one that expects events is refused while there are none, and is sent again if there are some meanwhile: its rows were read without them
      const isMissing = row.expected === expectExists && version === 0
      return { ...row, expected: isMissing ? noVersion : version }
    })
  }
  private readonly reader: RowReader = {
    readRows: (build, target, keys) => {
      const { parameters, text } = readRowsStatement(build, target.name, keys)
      return query(`read rows of ${target.name}`, () =>
        answered(this.sql.unsafe<Array<Record<string, unknown>>>(text, parameters, { prepare: true }), answerMs)
      ).pipe(
        Effect.mapError(
          (cause) => new StoreError({ operation: "read rows", retryable: cause.retryable, reason: cause.reason, cause })
        )
      )
    }
  }
}
