// The parts of an append statement that write the rows of inline projections, by the engine's own parts, and move their positions.
import type { InlineChanges } from "../../aggregate/inline.ts"
import { arrayOf } from "../client/columns.ts"
import type { StatementParts } from "../store/commit-parts.ts"
import { tableParts, windowParts } from "../store/commit-rows.ts"
import { relationsOf } from "../store/ddl.ts"

/** The rows of an inline build of a topic. */
export interface InlineTopicChanges extends InlineChanges {
  readonly topicId: number
  readonly topic: string
}
/** The SQLSTATE of `millrace.refuse_inline`: the topic has other inline builds than the statement was made for. */
export const otherInlineCode = "MR410"
/** The SQLSTATE of `millrace.refuse_frozen`: a promotion has frozen an inline build. */
export const frozenCode = "MR411"

/**
 * Adds what inline builds write. Their positions move with the counters, which the statement holds locked, and only while the build is live: a
 * promotion freezes an inline build like any other. Rows are written for all appends of the statement or for none, so nothing in it may be refused.
 */
export const inlineParts = (parts: StatementParts, changes: ReadonlyArray<InlineTopicChanges>): void => {
  if (changes.length === 0) return
  const column = (type: string, of: (change: InlineTopicChanges) => string | number) =>
    `${parts.parameter(arrayOf(changes.map(of)))}::${type}[]`
  parts.add(`inline_builds as materialized (select * from unnest(${column("text", ({ build }) => build.name)},
    ${column("int4", ({ build }) => build.version)}, ${column("int4", ({ topicId }) => topicId)}, ${column("text", ({ topic }) => topic)})
    as b(projection, version, topic_id, topic))`)
  parts.add(`inline_added as materialized (select b.projection, b.version, b.topic, p.partition, p.next_position, a.n
    from pos p join inline_builds b using (topic_id) join (select topic_id, partition, max(total) as n from ok group by 1, 2) a using (topic_id, partition))`)
  // as a promotion does, which freezes all positions in this order
  parts.add(`inline_held as materialized (select g.projection, g.version, g.topic, g.partition
    from inline_added a join millrace.progress g using (projection, version, topic, partition)
    where g.inline and (g.mode = 'live' or (g.mode = 'frozen' and g.frozen_until < clock_timestamp()))
    order by g.topic, g.partition, g.projection, g.version for update of g)`)
  parts.add(`inline_moved as (update millrace.progress g set next_position = a.next_position, commit_no = g.commit_no + 1, events = g.events + a.n,
      mode = 'live', frozen_until = null, frozen_by = null, fingerprint = null, committed_at = clock_timestamp()
    from inline_held h join inline_added a using (projection, version, topic, partition)
    where (g.projection, g.version, g.topic, g.partition) = (h.projection, h.version, h.topic, h.partition) returning 1)`)
  parts.add(`fence as materialized (select 0 as part, 'live'::text as mode, 0::int8 as outbox_seq where exists (select from pos)
    and case when (select count(*) from inline_moved) = (select count(*) from inline_added) then true else millrace.refuse_frozen() end)`)
  const relations = changes.flatMap(({ build, tables, windows }) => {
    const of = new Map(relationsOf(build).map((relation) => [relation.name, relation]))
    return [
      ...tables.map((change) => ({ relation: of.get(change.table.name)!, table: change, window: undefined })),
      ...windows.map((change) => ({ relation: of.get(change.window.name)!, table: undefined, window: change }))
    ]
  })
  for (const { relation, table, window } of relations.toSorted((a, b) =>
    a.relation.qualifiedName < b.relation.qualifiedName ? -1 : 1
  )) {
    if (table !== undefined) tableParts(parts, relation, [{ part: 0, of: table }])
    else windowParts(parts, relation, [{ part: 0, of: window }], [0])
  }
}
