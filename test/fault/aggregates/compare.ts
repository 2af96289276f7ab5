// Compares what commands were answered with what is stored: the log, the versions, the inline rows, the outbox or the topic on Kafka.
import type postgres from "postgres"
import * as Effect from "effect/Effect"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import type { Differences } from "../harness/differences.ts"
import type { Answers } from "./answers.ts"
import type { Run } from "./run.ts"

/** An event of the log. */
interface Stored {
  readonly partition: number
  readonly position: number
  readonly key: string
  readonly event_id: string
  readonly version: string
  readonly value: string
}
/** The state of a stream. */
interface Folded {
  total: number
  count: number
  /** The least total that it ever had. */
  least: number
}
const commandOf = (eventId: string) => eventId.slice(0, eventId.lastIndexOf("/"))

/** Positions and versions have no gap, and every decision was taken on the newest state. Returns the streams' states. */
const compareLog = (differences: Differences, stored: ReadonlyArray<Stored>): ReadonlyMap<string, Folded> => {
  const ends = new Map<number, number>()
  const states = new Map<string, Folded>()
  for (const { event_id, key, partition, position, value, version } of stored) {
    const end = ends.get(partition) ?? 0
    if (position !== end)
      differences.add("order", `position ${position} of partition ${partition} comes after ${end - 1}`)
    ends.set(partition, position + 1)
    const state = states.get(key) ?? { total: 0, count: 0, least: 0 }
    const event = JSON.parse(value) as { readonly amount: number; readonly total: number; readonly count: number }
    state.total += event.amount
    state.count++
    state.least = Math.min(state.least, state.total)
    states.set(key, state)
    if (Number(version) !== state.count)
      differences.add("order", `${event_id} has version ${version} of ${key} instead of ${state.count}`)
    const isDecided = event.count > 0
    if (isDecided && (event.total !== state.total || event.count !== state.count))
      differences.add(
        "wrong",
        `${event_id} was decided on version ${event.count - 1} of ${key}, not ${state.count - 1}`
      )
  }
  return states
}

/** Each answer's events are there, once and where the answer says; no event is of a command that was answered otherwise. */
const compareAnswers = (
  differences: Differences,
  { byId }: Answers,
  stored: ReadonlyArray<Stored>,
  states: ReadonlyMap<string, Folded>
) => {
  const found = new Map<string, Array<Stored>>()
  for (const one of stored) found.set(commandOf(one.event_id), [...(found.get(commandOf(one.event_id)) ?? []), one])
  for (const [id, { answer, request }] of byId) {
    const events = found.get(id) ?? []
    found.delete(id)
    const expected = answer.kind === "executed" ? answer.count : 0
    if (events.length < expected) differences.add("lost", `${expected - events.length} events of ${id}, ${answer.kind}`)
    if (events.length > expected)
      differences.add(
        expected === 0 ? "wrong" : "doubled",
        `${events.length} events of ${id}, ${JSON.stringify(answer)}`
      )
    const last = events.at(-1)
    if (answer.kind === "executed" && last !== undefined) {
      const is = `${last.key} ${last.version} ${last.partition}:${last.position}`
      differences.same(`the last event of ${id}`, is, `${request.stream} ${answer.version} ${answer.position}`)
      const amounts = events.map(({ value }) => Math.abs((JSON.parse(value) as { readonly amount: number }).amount))
      differences.same(`the amounts of ${id}`, String(amounts), String(request.amounts))
    }
    if (answer.kind === "rejected" && (states.get(request.stream)?.least ?? 0) >= request.amounts[0]!)
      differences.add("wrong", `${id} was rejected, although ${request.stream} never had so little`)
  }
  for (const [id, events] of found) differences.add("wrong", `${events.length} events of ${id}, which has no answer`)
}

/** The versions, counters and rows that are stored beside the events. */
const compareRows = async (
  differences: Differences,
  sql: postgres.Sql,
  topic: string,
  states: ReadonlyMap<string, Folded>,
  stored: ReadonlyArray<Stored>,
  isInline: boolean
) => {
  const compareAll = (
    what: string,
    found: ReadonlyArray<readonly [string, unknown]>,
    expected: (state: Folded) => unknown
  ) => {
    const rows = new Map(found.map(([stream, row]) => [stream, JSON.stringify(row)]))
    for (const [stream, state] of states) {
      const row = rows.get(stream)
      rows.delete(stream)
      const wanted = JSON.stringify(expected(state))
      if (row !== wanted) differences.add("wrong", `${what} of ${stream} is ${row} instead of ${wanted}`)
    }
    for (const [stream, row] of rows) differences.add("wrong", `${what} of ${stream} is ${row}, but it has no events`)
  }
  const versions = await sql<Array<{ stream: string; version: number }>>`
    select stream, version from millrace.event_stream join millrace.log_topic using (topic_id) where name = ${topic} and version > 0`
  compareAll(
    "the version",
    versions.map(({ stream, version }) => [stream, version]),
    ({ count }) => count
  )
  if (isInline) {
    const balances = await sql<Array<{ ledger_id: string; balance: number; count: number }>>`select * from balances`
    compareAll(
      "the inline row",
      balances.map(({ balance, count, ledger_id }) => [ledger_id, [balance, count]]),
      ({ count, total }) => [total, count]
    )
    const [sum] = await sql<Array<{ events: number; moved: number }>>`select events::int8, moved::int8 from sums`
    const total = [...states.values()].reduce((all, state) => all + state.total, 0)
    differences.same("the inline sums", `${sum?.events ?? 0} ${sum?.moved ?? 0}`, `${stored.length} ${total}`)
    const heads = await sql<Array<{ partition: number; next_position: number; inline: number }>>`
    select h.partition, h.next_position, g.next_position as inline from millrace.log_head h join millrace.log_topic t using (topic_id)
    join millrace.progress g on g.topic = t.name and g.partition = h.partition where t.name = ${topic}`
    for (const { inline, next_position: next, partition } of heads) {
      const count = stored.filter((one) => one.partition === partition).length
      differences.same(
        `the counter of partition ${partition}`,
        `${next}, inline ${inline}`,
        `${count}, inline ${count}`
      )
    }
  }
  const [{ deadlocks } = { deadlocks: 0 }] = await sql<Array<{ deadlocks: number }>>`
    select deadlocks from pg_stat_database where datname = current_database()`
  if (deadlocks > 0) differences.add("wrong", `${deadlocks} deadlocks`)
}

/** What was published, in its order. */
type Published = ReadonlyArray<{ readonly partition: number; readonly seq: number; readonly text: string }>
const textOf = (key: unknown, eventId: unknown, version: unknown, value: unknown) =>
  `${key} ${eventId} ${version} ${value}`

const comparePublished = (
  differences: Differences,
  where: string,
  published: Published,
  stored: ReadonlyArray<Stored>
) => {
  const seen = new Map<string, number>()
  for (const { text } of published) seen.set(text, (seen.get(text) ?? 0) + 1)
  const rest = new Map<number, Array<Stored>>()
  for (const one of stored) rest.set(one.partition, [...(rest.get(one.partition) ?? []), one])
  for (const { event_id, key, value, version } of stored) {
    const count = seen.get(textOf(key, event_id, version, value)) ?? 0
    if (count === 0) differences.add("lost", `${event_id} is not in ${where}`)
    if (count > 1) differences.add("doubled", `${event_id} is in ${where} ${count} times`)
  }
  const counts = new Map<number, number>()
  for (const { partition, seq, text } of published) {
    const at = counts.get(partition) ?? 0
    counts.set(partition, at + 1)
    if (seq !== at + 1)
      differences.add("order", `number ${seq} in partition ${partition} of ${where} comes after ${at}`)
    const one = rest.get(partition)?.[at]
    if (one === undefined || text !== textOf(one.key, one.event_id, one.version, one.value))
      differences.add(
        "order",
        `number ${at + 1} in partition ${partition} of ${where} is ${text.slice(0, 60)} instead of ${one?.event_id}`
      )
  }
}
const readOutbox = async (sql: postgres.Sql, topic: string): Promise<Published> => {
  const segments = await sql<Array<{ partition: number; first_seq: number; meta: string; vals: string }>>`
    select partition, first_seq, meta, vals from millrace.outbox where source = ${topic} order by partition, first_seq`
  return segments.flatMap(({ first_seq, meta, partition, vals }) => {
    const values = vals.split("\n")
    const metas = JSON.parse(meta) as ReadonlyArray<[string, number, string, null, null, null, Record<string, string>]>
    return metas.map(([key, , eventId, , , , headers], i) => ({
      partition,
      seq: first_seq + i,
      text: textOf(key, eventId, headers["millrace-version"], values[i])
    }))
  })
}
const readTopic = (brokers: ReadonlyArray<string>, topic: string): Promise<Published> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const log = yield* KafkaLog.make({ brokers })
        const published: Array<Published[number]> = []
        for (const { end, partition } of yield* log.bounds(topic))
          for (let position = 0; position < end;) {
            const { next, records } = yield* log.read(topic, partition, position)
            for (const { eventId, headers, key, value } of records) {
              const text = textOf(key, eventId, headers["millrace-version"], value)
              published.push({ partition, seq: Number(headers["millrace-seq"]), text })
            }
            position = next
          }
        return published
      })
    )
  )

/** Compares everything, once nothing runs any more but the relay. */
export const compare = async (run: Run): Promise<number> => {
  const { answers, differences, services } = run
  const { brokers, name, sql } = services
  const topic = `${name}-ledger`
  const stored = await sql<Array<Stored>>`
    select partition, position, key, event_id, headers ->> 'millrace-version' as version, value from millrace.log_record
    where topic = ${topic} order by partition, position`
  const states = compareLog(differences, stored)
  compareAnswers(differences, answers, stored, states)
  await compareRows(differences, sql, topic, states, stored, run.options.isInline !== false)
  if (run.options.on === "embedded") {
    comparePublished(differences, "the outbox", await readOutbox(sql, topic), stored)
    return stored.length
  }
  await run.until("publication of everything", async () => {
    const rows = await sql`
      select 1 from millrace.log_head h join millrace.log_topic t using (topic_id)
      left join millrace.relay_position p on (p.target, p.projection, p.source, p.partition) = ('kafka', t.name, t.name, h.partition)
      where t.name = ${topic} and h.next_position > coalesce(p.seq, 0)`
    return rows.length === 0
  })
  comparePublished(differences, "the topic on Kafka", await readTopic(brokers, topic), stored)
  return stored.length
}
