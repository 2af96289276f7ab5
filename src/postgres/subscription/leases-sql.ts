// The statements of the fan-out's leases on PostgreSQL: claim, redeliver, acknowledge, return, dead-letter, sweep. It runs them; it keeps nothing.
import type { Sql } from "../client/client.ts"
import type { PackedRecords } from "../log/batch-codec.ts"
import { arrayLiteral } from "../client/types.ts"

/** First keys of advisory locks, beside those of the log: the second is the consumer's number, or the subscription's. */
export const consumerKey = 1_829_999_997
export const subscriptionKey = 1_829_999_998

/** Positions of a partition. In a subscription that keeps keys together they have one slot; else it is 0. */
export interface Chunk {
  readonly partition: number
  readonly slot: number
  readonly positions: ReadonlyArray<number>
}
/** What was looked at of a partition, from `first` up to `last`: all there is in it is a candidate, or a hole. */
export interface Examined {
  readonly partition: number
  readonly first: number
  readonly last: number
}
/** Whose statement it is. */
export interface Claimant {
  readonly subscription: number
  readonly consumer: number
  readonly keyed: boolean
  readonly ackTimeoutMs: number
}

/** Ascending positions as a multirange. */
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
/** The positions of a multirange, ascending. */
export const positionsOf = (text: string): Array<number> => {
  const positions: Array<number> = []
  for (const [, from, to] of text.matchAll(/\[(\d+),(\d+)\)/g)) {
    for (let position = Number(from); position < Number(to); position++) positions.push(position)
  }
  return positions
}
const partitions = (chunks: ReadonlyArray<{ readonly partition: number }>) =>
  arrayLiteral(chunks.map(({ partition }) => partition))
const multiranges = (chunks: ReadonlyArray<Pick<Chunk, "positions">>) =>
  arrayLiteral(chunks.map(({ positions }) => multirange(positions)))

/** A partition's part in a claim: what was a candidate from `first` on, up to `next`, is the claimant's, but for slots held. */
export interface Claimed {
  readonly partition: number
  /** Whether anything was claimed; where not, another consumer was faster, and the cursor is at `next`. */
  readonly claimed: boolean
  readonly first: number
  readonly next: number
  /** Slots that wait, since another consumer has them or earlier messages of theirs wait. */
  readonly held: ReadonlyArray<number> | null
}
/**
 * Claims candidates beyond the cursors and moves them. The leases were read as of the statement's start, perhaps before another's
 * claim that held the cursor's lock; where keys matter such a claim gets nothing, and is to be made again.
 */
export const claim = (
  sql: Sql,
  { ackTimeoutMs, consumer, keyed, subscription }: Claimant,
  examined: ReadonlyArray<Examined>,
  chunks: ReadonlyArray<Chunk>
) =>
  sql.unsafe<Array<Claimed>>(
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

/** Messages that come again, now this consumer's. */
export interface Returned {
  readonly partition: number
  readonly slot: number
  readonly positions: string
  readonly redeliveries: number
}
/** Takes what is due, about `limit` messages, whole chunks. Of one slot nothing overtakes what waits, or what another consumer has. */
export const redeliver = (sql: Sql, { ackTimeoutMs, consumer, keyed, subscription }: Claimant, limit: number) =>
  sql.unsafe<Array<Returned>>(keyed ? redeliverKeyed : redeliverAny, [subscription, consumer, ackTimeoutMs, limit], {
    prepare: true
  })
const chosen = `
  chosen as (
    select lease_id, partition from (
      select lease_id, partition, sum(size) over (order by partition, first, lease_id) - size as before
      from (
        select w.lease_id, w.partition, lower(w.positions) as first,
          (select sum(upper(r) - lower(r)) from unnest(w.positions) as r) as size
        from waiting w
      ) sized
    ) s
    where before < $4::integer
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
  ), ${chosen}, locked as materialized (
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
  ), ${chosen}, moved as (
    update millrace.subscription_cursor c
    set claims = c.claims + 1
    where c.subscription_id = $1::integer and c.partition in (select partition from chosen)
  ), locked as (select lease_id from chosen) ${leaseTo}`

// Takes positions out of leases; what is left of each stays.
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
  ), gone as (
    delete from millrace.subscription_lease l using touched t where l.lease_id = t.lease_id and isempty(t.rest)
  ), kept as (
    update millrace.subscription_lease l set positions = t.rest from touched t
    where l.lease_id = t.lease_id and not isempty(t.rest)
  )`
/** Forgets messages, whoever has them. Returns whether others of their slots wait, which may be free now. */
export const acknowledge = (sql: Sql, subscription: number, chunks: ReadonlyArray<Omit<Chunk, "slot">>) =>
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

/** Gives messages back, to come again after a time, perhaps counted once more. Those that the consumer does not have any more are left alone. */
export const giveBack = (
  sql: Sql,
  { consumer, subscription }: Claimant,
  chunks: ReadonlyArray<Omit<Chunk, "slot">>,
  delayMs: number,
  count: 0 | 1
) =>
  sql.unsafe(giveBackText, [subscription, partitions(chunks), multiranges(chunks), consumer, delayMs, count], {
    prepare: true
  })
const giveBackText = `
  with ${takeOut}
  insert into millrace.subscription_lease (subscription_id, partition, slot, positions, redeliveries, due)
  select $1::integer, partition, slot, taken, redeliveries + $6::integer, now() + $5::float8 * interval '1 millisecond'
  from touched`

/**
 * Frees what a consumer has beyond the messages that it knows of: a claim whose reply was lost. They come again at once, and count as
 * never delivered.
 */
export const disown = (sql: Sql, { consumer, subscription }: Claimant, known: ReadonlyArray<Omit<Chunk, "slot">>) =>
  sql.unsafe(disownText, [subscription, partitions(known), multiranges(known), consumer], { prepare: true })
const disownText = `
  with known as (
    select * from unnest($2::integer[], $3::text[]) as k (partition, positions)
  ), mine as materialized (
    select l.lease_id, l.partition, l.slot, l.redeliveries,
      l.positions - coalesce((select k.positions::int8multirange from known k where k.partition = l.partition), '{}') as unknown,
      l.positions * coalesce((select k.positions::int8multirange from known k where k.partition = l.partition), '{}') as rest
    from millrace.subscription_lease l
    where l.subscription_id = $1::integer and l.consumer = $4::integer
    order by l.lease_id
    for update of l
  ), gone as (
    delete from millrace.subscription_lease l using mine m where l.lease_id = m.lease_id and isempty(m.rest)
  ), kept as (
    update millrace.subscription_lease l set positions = m.rest from mine m
    where l.lease_id = m.lease_id and not isempty(m.rest) and not isempty(m.unknown)
  )
  insert into millrace.subscription_lease (subscription_id, partition, slot, positions, redeliveries, due)
  select $1::integer, partition, slot, unknown, redeliveries, now() from mine where not isempty(unknown)`

/** A consumer is at work: it has what it has for a further time. */
export const extend = (sql: Sql, { ackTimeoutMs, consumer, subscription }: Claimant) => sql`
  update millrace.subscription_lease set due = now() + ${ackTimeoutMs}::float8 * interval '1 millisecond'
  where subscription_id = ${subscription} and consumer = ${consumer}`

/** A consumer ends: what it has can be delivered at once, and counts as never delivered. */
export const release = (sql: Sql, { consumer, subscription }: Claimant) => sql`
  update millrace.subscription_lease set consumer = null, due = now()
  where subscription_id = ${subscription} and consumer = ${consumer}`

/**
 * Appends one message to the dead-letter topic and forgets it, in one statement. Nothing happens unless the consumer has it and the
 * topic is there. Returns the end of the partition it went to, for the log's readers.
 */
export const bury = (
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
  ), gone as (
    delete from millrace.subscription_lease l using held h where l.lease_id = h.lease_id and isempty(h.rest)
  ), kept as (
    update millrace.subscription_lease l set positions = h.rest from held h
    where l.lease_id = h.lease_id and not isempty(h.rest)
  ), head as (
    insert into millrace.log_head as h (topic_id, partition, next_position)
    select topic_id, partition, 1 from held
    on conflict (topic_id, partition) do update set next_position = h.next_position + 1
    returning h.topic_id, h.partition, h.next_position
  ), batch as (
    insert into millrace.log_batch (topic_id, partition, base_position, next_position, records, bytes, meta, vals)
    select topic_id, partition, next_position - 1, next_position, 1, ${packed.bytes}, ${packed.meta}, ${packed.vals} from head
  )
  select topic_id || '.' || partition || '=' || next_position as ends from head`

/** Takes from consumers what they had too long, and from those that died what they had. It counts as a redelivery. */
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

/** In how many milliseconds the next of the messages that wait is due, by subscription; 0 or less: at once. */
export const nextDue = (sql: Sql, subscriptions: ReadonlyArray<number>) => sql<
  Array<{ readonly subscription_id: number; readonly due_ms: number }>
>`
  select subscription_id, (extract(epoch from min(due) - now()) * 1000)::float8 as due_ms
  from millrace.subscription_lease
  where subscription_id = any (${arrayLiteral(subscriptions)}::integer[]) and consumer is null
  group by 1`
