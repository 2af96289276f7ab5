// The statements over leases of subscriptions on PostgreSQL: claim, redeliver, acknowledge, return, dead-letter, sweep.
import type { Sql } from "../client/client.ts"
import type { PackedRecords } from "../log/batch-codec.ts"
import { arrayLiteral } from "../client/types.ts"

/** First keys of advisory locks, which differ from those of the log. The second key is the number of the consumer or subscription. */
export const consumerKey = 1_829_999_997
export const subscriptionKey = 1_829_999_998

/** Positions of a partition that are leased together. In a key-shared subscription they have the same slot; else the slot is 0. */
export interface PositionChunk {
  readonly partition: number
  readonly slot: number
  readonly positions: ReadonlyArray<number>
}
/** A range of positions, from `first` up to `last`, whose records are all candidates of a claim. */
export interface ExaminedRange {
  readonly partition: number
  readonly first: number
  readonly last: number
}
/** The consumer on whose behalf a statement runs. */
export interface Claimant {
  readonly subscription: number
  readonly consumer: number
  readonly keyed: boolean
  readonly ackTimeoutMs: number
}

/** Ascending positions as the text of a multirange. */
export const multirange = (positions: ReadonlyArray<number>): string => {
  let text = "{"
  for (let i = 0; i < positions.length;) {
    let end = i + 1
    while (end < positions.length && positions[end] === positions[end - 1]! + 1) end++
    text += `${text === "{" ? "" : ","}[${positions[i]},${positions[end - 1]! + 1})`
    i = end
  }
  return `${text}}`
}
/** The positions in the text of a multirange, ascending. */
export const positionsOf = (text: string): Array<number> => {
  const positions: Array<number> = []
  for (const [, from, to] of text.matchAll(/\[(\d+),(\d+)\)/g)) {
    for (let position = Number(from); position < Number(to); position++) positions.push(position)
  }
  return positions
}
const partitions = (chunks: ReadonlyArray<{ readonly partition: number }>) =>
  arrayLiteral(chunks.map(({ partition }) => partition))
const multiranges = (chunks: ReadonlyArray<Pick<PositionChunk, "positions">>) =>
  arrayLiteral(chunks.map(({ positions }) => multirange(positions)))

/** The result of a claim for one partition: candidates from `first` up to `next` belong to the claimant, except those of slots in `held`. */
export interface PartitionClaim {
  readonly partition: number
  /** Whether anything was claimed. If not, another consumer was faster, and the cursor is at `next`. */
  readonly claimed: boolean
  readonly first: number
  readonly next: number
  /** Slots that have to wait, because another consumer holds them or earlier messages of theirs wait. */
  readonly held: ReadonlyArray<number> | null
}
/**
 * Claims candidates after the cursors, and moves the cursors. Leases are read as of the statement's start, which may be before another
 * claim that held the cursor's lock. In a key-shared subscription the statement then claims nothing, and has to be repeated.
 */
export const claim = (
  sql: Sql,
  { ackTimeoutMs, consumer, keyed, subscription }: Claimant,
  examined: ReadonlyArray<ExaminedRange>,
  chunks: ReadonlyArray<PositionChunk>
) =>
  sql.unsafe<Array<PartitionClaim>>(
    claimText,
    [
      subscription,
      consumer,
      keyed,
      ackTimeoutMs,
      partitions(examined),
      arrayLiteral(examined.map(({ first }) => first)),
      arrayLiteral(examined.map(({ last }) => last)),
      partitions(chunks),
      arrayLiteral(chunks.map(({ slot }) => slot)),
      multiranges(chunks)
    ],
    { prepare: true }
  )
const claimText = `
  with seen as materialized (
    select partition, claims from millrace.subscription_cursor where subscription_id = $1::integer
  ), cursor as materialized (
    select c.partition, c.next_position, c.claims, e.first, e.last
    from millrace.subscription_cursor c
    join unnest($5::integer[], $6::bigint[], $7::bigint[]) as e (partition, first, last) using (partition)
    where c.subscription_id = $1::integer
    order by c.partition
    for update of c
  ), ready as materialized (
    select c.* from cursor c join seen s using (partition)
    where c.next_position >= c.first and c.next_position < c.last and (not $3::boolean or c.claims = s.claims)
  ), candidate as materialized (
    select k.partition, k.slot, k.positions::int8multirange * int8multirange(int8range(r.next_position, null)) as positions,
      $3::boolean and exists (
        select from millrace.subscription_lease l
        where (l.subscription_id, l.partition) = ($1::integer, k.partition) and l.slot in (0, k.slot)
          and l.consumer is distinct from $2::integer
      ) as held
    from unnest($8::integer[], $9::integer[], $10::text[]) as k (partition, slot, positions)
    join ready r using (partition)
  ), moved as (
    update millrace.subscription_cursor c
    set next_position = r.last, claims = c.claims + 1
    from ready r
    where (c.subscription_id, c.partition) = ($1::integer, r.partition)
  ), leased as (
    insert into millrace.subscription_lease (subscription_id, partition, slot, positions, consumer, due)
    select $1::integer, partition, slot, positions, case when not held then $2::integer end,
      now() + case when held then 0 else $4::float8 end * interval '1 millisecond'
    from candidate
    where not isempty(positions)
  )
  select c.partition, r.partition is not null as claimed, c.next_position::float8 as first,
    coalesce(r.last, c.next_position)::float8 as next,
    (select json_agg(k.slot) from candidate k where k.partition = c.partition and k.held) as held
  from cursor c left join ready r using (partition)`

/** Positions that are redelivered to this consumer. */
export interface RedeliveredChunk {
  readonly partition: number
  readonly slot: number
  readonly positions: string
  readonly redeliveries: number
}
/** The positions of a chunk, each with its partition. */
export const positionsIn = ({ partition, positions }: Pick<RedeliveredChunk, "partition" | "positions">) =>
  positionsOf(positions).map((position) => ({ partition, position }))
/**
 * Takes whole chunks that are due, about `limit` messages. No message of a slot overtakes one that waits or that another consumer holds, and
 * the limit does not divide chunks of a slot whose positions interleave.
 */
export const redeliver = (sql: Sql, { ackTimeoutMs, consumer, keyed, subscription }: Claimant, limit: number) =>
  sql.unsafe<Array<RedeliveredChunk>>(
    keyed ? redeliverKeyed : redeliverAny,
    [subscription, consumer, ackTimeoutMs, limit],
    {
      prepare: true
    }
  )
// A chunk from which messages were returned interleaves with the chunk of these. In a key-shared subscription such a group is taken as a whole.
const sized = `
  sized as (
    select w.lease_id, w.partition, w.slot, lower(w.positions) as first, upper(w.positions) as next,
      (select sum(upper(r) - lower(r)) from unnest(w.positions) as r) as size
    from waiting w
  )`
const chosenAny = `
  ${sized}, chosen as (
    select lease_id from (
      select lease_id, sum(size) over (order by partition, first, lease_id) - size as before from sized
    ) s
    where before < $4::integer
  )`
const chosenKeyed = `
  ${sized}, bounded as (
    select *, first < max(next) over (
      partition by partition, slot order by first, lease_id rows between unbounded preceding and 1 preceding
    ) as interleaves
    from sized
  ), grouped as (
    select *, max(first) filter (where interleaves is not true) over (
      partition by partition, slot order by first, lease_id
    ) as group_first
    from bounded
  ), chosen as (
    select lease_id, partition from (
      select lease_id, partition, sum(size) over (
        order by partition, group_first, slot range between unbounded preceding and current row exclude group
      ) as before
      from grouped
    ) s
    where coalesce(before, 0) < $4::integer
  )`
const leaseTo = `
  update millrace.subscription_lease l
  set consumer = $2::integer, due = now() + $3::float8 * interval '1 millisecond'
  from locked
  where l.lease_id = locked.lease_id
  returning l.partition, l.slot, l.positions::text as positions, l.redeliveries`
const redeliverAny = `
  with waiting as (
    select * from millrace.subscription_lease
    where subscription_id = $1::integer and consumer is null and due <= now()
  ), ${chosenAny}, locked as materialized (
    select l.lease_id from millrace.subscription_lease l
    where l.lease_id in (select lease_id from chosen) and l.consumer is null
    order by l.lease_id
    for update skip locked
  ) ${leaseTo}`
const redeliverKeyed = `
  with seen as materialized (
    select partition, claims from millrace.subscription_cursor where subscription_id = $1::integer
  ), cursor as materialized (
    select c.partition, c.claims
    from millrace.subscription_cursor c
    where c.subscription_id = $1::integer and exists (
      select from millrace.subscription_lease l
      where (l.subscription_id, l.partition) = ($1::integer, c.partition) and l.consumer is null and l.due <= now()
    )
    order by c.partition
    for update of c
  ), waiting as (
    select w.* from millrace.subscription_lease w
    join cursor c using (partition)
    join seen s using (partition)
    where w.subscription_id = $1::integer and w.consumer is null and w.due <= now() and c.claims = s.claims and not exists (
      select from millrace.subscription_lease o
      where (o.subscription_id, o.partition) = ($1::integer, w.partition) and (o.slot in (0, w.slot) or w.slot = 0)
        and case when o.consumer is null then o.due > now() else o.consumer <> $2::integer end
    )
  ), ${chosenKeyed}, moved as (
    update millrace.subscription_cursor c
    set claims = c.claims + 1
    where c.subscription_id = $1::integer and c.partition in (select partition from chosen)
  ), locked as (select lease_id from chosen) ${leaseTo}`

// Leaves the leases of a common table expression with the positions in its column `rest`, and deletes those without any.
const keepRest = (leases: string) => `
  gone as (
    delete from millrace.subscription_lease l using ${leases} r where l.lease_id = r.lease_id and isempty(r.rest)
  ), kept as (
    update millrace.subscription_lease l set positions = r.rest from ${leases} r
    where l.lease_id = r.lease_id and not isempty(r.rest)
  )`
// Removes positions from leases.
const takeOut = `
  given as (
    select * from unnest($2::integer[], $3::text[]) as g (partition, positions)
  ), touched as materialized (
    select l.lease_id, l.partition, l.slot, l.redeliveries, l.positions * g.positions::int8multirange as taken,
      l.positions - g.positions::int8multirange as rest
    from millrace.subscription_lease l
    join given g using (partition)
    where l.subscription_id = $1::integer and l.positions && g.positions::int8multirange
      and ($4::integer is null or l.consumer = $4::integer)
    order by l.lease_id
    for update of l
  ), ${keepRest("touched")}`
/** Removes messages from all leases. Returns whether other messages of their slots wait, which may be delivered now. */
export const acknowledge = (sql: Sql, subscription: number, chunks: ReadonlyArray<Omit<PositionChunk, "slot">>) =>
  sql.unsafe<Array<{ readonly waits: boolean }>>(
    acknowledgeText,
    [subscription, partitions(chunks), multiranges(chunks), null],
    { prepare: true }
  )
const acknowledgeText = `
  with ${takeOut}
  select exists (
    select from touched t
    join millrace.subscription_lease w on (w.subscription_id, w.partition) = ($1::integer, t.partition) and w.slot in (0, t.slot)
    where t.slot > 0 and w.consumer is null
  ) as waits`

/** Returns messages, to be redelivered after a delay; `count` is added to their redeliveries. Ignores those that the consumer no longer holds. */
export const returnMessages = (
  sql: Sql,
  { consumer, subscription }: Claimant,
  chunks: ReadonlyArray<Omit<PositionChunk, "slot">>,
  delayMs: number,
  count: 0 | 1
) =>
  sql.unsafe(returnText, [subscription, partitions(chunks), multiranges(chunks), consumer, delayMs, count], {
    prepare: true
  })
const returnText = `
  with ${takeOut}
  insert into millrace.subscription_lease (subscription_id, partition, slot, positions, redeliveries, due)
  select $1::integer, partition, slot, taken, redeliveries + $6::integer, now() + $5::float8 * interval '1 millisecond'
  from touched`

/**
 * Returns messages that the server leased to a consumer beyond those that it knows of, because the reply to a claim was lost. They are
 * redelivered at once, and count as never delivered.
 */
export const disown = (
  sql: Sql,
  { consumer, subscription }: Claimant,
  known: ReadonlyArray<Omit<PositionChunk, "slot">>
) => sql.unsafe(disownText, [subscription, partitions(known), multiranges(known), consumer], { prepare: true })
const disownText = `
  with known as (
    select * from unnest($2::integer[], $3::text[]) as k (partition, positions)
  ), mine as materialized (
    select l.lease_id, l.partition, l.slot, l.redeliveries, l.positions - k.positions as unknown, l.positions * k.positions as rest
    from millrace.subscription_lease l
    cross join lateral (
      select coalesce((select known.positions::int8multirange from known where known.partition = l.partition), '{}') as positions
    ) k
    where l.subscription_id = $1::integer and l.consumer = $4::integer and not l.positions <@ k.positions
    order by l.lease_id
    for update of l
  ), ${keepRest("mine")}
  insert into millrace.subscription_lease (subscription_id, partition, slot, positions, redeliveries, due)
  select $1::integer, partition, slot, unknown, redeliveries, now() from mine`

/** Extends all leases of a consumer that shows activity. */
export const extend = (sql: Sql, { ackTimeoutMs, consumer, subscription }: Claimant) => sql`
  update millrace.subscription_lease set due = now() + ${ackTimeoutMs}::float8 * interval '1 millisecond'
  where subscription_id = ${subscription} and consumer = ${consumer}`

/** Returns everything that a closing consumer holds. It is redelivered at once, and counts as never delivered. */
export const release = (sql: Sql, { consumer, subscription }: Claimant) => sql`
  update millrace.subscription_lease set consumer = null, due = now()
  where subscription_id = ${subscription} and consumer = ${consumer}`

/**
 * Appends a message to the dead-letter topic and removes it from its lease, in one statement. Does nothing unless the consumer holds the
 * message and the topic exists. Returns the end of the partition that it was appended to, for the log's readers.
 */
export const deadLetter = (
  sql: Sql,
  { consumer, subscription }: Claimant,
  partition: number,
  position: number,
  topic: string,
  packed: PackedRecords
) => sql<Array<{ readonly ends: string }>>`
  with held as materialized (
    select l.lease_id, l.positions - int8multirange(int8range(${position}, ${position}, '[]')) as rest, t.topic_id,
      ${partition}::integer % t.partitions as partition
    from millrace.subscription_lease l, millrace.log_topic t
    where (l.subscription_id, l.partition, l.consumer) = (${subscription}, ${partition}, ${consumer})
      and l.positions @> ${position}::bigint and t.name = ${topic}
    for update of l
  ), ${sql.unsafe(keepRest("held"))}, head as (
    insert into millrace.log_head as h (topic_id, partition, next_position)
    select topic_id, partition, 1 from held
    on conflict (topic_id, partition) do update set next_position = h.next_position + 1
    returning h.topic_id, h.partition, h.next_position
  ), batch as (
    insert into millrace.log_batch (topic_id, partition, base_position, next_position, records, bytes, meta, vals)
    select topic_id, partition, next_position - 1, next_position, 1, ${packed.bytes}, ${packed.meta}, ${packed.vals} from head
  )
  select topic_id || '.' || partition || '=' || next_position as ends from head`

/** Returns messages whose lease expired, or whose consumer died. This counts as a redelivery. */
export const sweep = (sql: Sql, subscriptions: ReadonlyArray<number>) => sql`
  with alive as materialized (
    select l.objid::bigint::integer as consumer from pg_locks l
    where l.locktype = 'advisory' and l.objsubid = 2 and l.granted and l.classid::bigint = ${consumerKey}
      and l.database = (select oid from pg_database where datname = current_database())
  ), lost as materialized (
    select l.lease_id from millrace.subscription_lease l
    where l.subscription_id = any (${arrayLiteral(subscriptions)}::integer[]) and l.consumer is not null
      and (l.due < now() or not exists (select from alive a where a.consumer = l.consumer))
    order by l.lease_id
    for update skip locked
  )
  update millrace.subscription_lease l
  set consumer = null, due = now(), redeliveries = l.redeliveries + 1
  from lost
  where l.lease_id = lost.lease_id`

/** In how many milliseconds the next waiting message is due, by subscription; 0 or less if it is due now. */
export const nextDue = (sql: Sql, subscriptions: ReadonlyArray<number>) => sql<
  Array<{ readonly subscription_id: number; readonly due_ms: number }>
>`
  select subscription_id, (extract(epoch from min(due) - now()) * 1000)::float8 as due_ms
  from millrace.subscription_lease
  where subscription_id = any (${arrayLiteral(subscriptions)}::integer[]) and consumer is null
  group by 1`
