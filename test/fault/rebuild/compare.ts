// Compares the result of a run with what was sent: the read models, and the derived topics on Kafka and Pulsar. Shares no code with the application.
import * as Effect from "effect/Effect"
import { connect } from "../../../src/pulsar/client/cluster.ts"
import { messagesOf } from "../../support/relay-pulsar.ts"
import { recordsOf } from "../../support/relay-kafka.ts"
import { marker } from "./readers.ts"
import type { Run } from "./run.ts"

/** A message of a derived topic. */
interface Found {
  readonly id: string
  readonly key: string
  readonly n: number
  readonly stream: string
  readonly seq: number
}
const topics = { copies: 4, odd: 1 } as const
type Topic = keyof typeof topics
const foundOf = (value: string, headers: Readonly<Record<string, string>>): Found => ({
  ...(JSON.parse(value) as Pick<Found, "id" | "key" | "n">),
  stream: headers["millrace-stream"] ?? "",
  seq: Number(headers["millrace-seq"])
})

const onKafka = ({ services: { brokers, log, name } }: Run, topic: Topic) =>
  Effect.map(recordsOf({ brokers }, log, `${name}.${topic}`), (records) =>
    records.map(({ headers, value }) => foundOf(value!, headers))
  )
const onPulsar = ({ services: { name, pulsar } }: Run, topic: Topic) =>
  Effect.scoped(
    Effect.gen(function* () {
      const cluster = yield* connect(pulsar)
      const found = yield* Effect.promise(() => messagesOf(cluster, `persistent://${name}/alerts/${name}.${topic}`))
      return found.map(({ properties, value }) => foundOf(value, properties))
    })
  )

/** Each event that belongs there is there once, in the order of its partition, and the numbers of a stream are 1..n over both topics. */
const compareTarget = Effect.fnUntraced(function* (
  run: Run,
  target: string,
  read: (topic: Topic) => Effect.Effect<ReadonlyArray<Found>, unknown>
) {
  const { differences, sent, services } = run
  const numbers = new Map<string, Set<number>>()
  for (const topic of ["copies", "odd"] as const) {
    const found = yield* read(topic)
    const where = `${target} ${topic}`
    const expected = sent.filter(({ n }) => topic === "copies" || n % 2 === 1)
    const at = new Map(expected.map((one, i) => [one.id, { ...one, i }]))
    const seen = new Set<string>()
    const last = new Map<string, number>()
    for (const { id, key, n, seq, stream } of found) {
      const one = at.get(id)
      if (one === undefined) {
        differences.add("wrong", `${where}: ${id} does not belong there`)
        continue
      }
      if (seen.has(id)) differences.add("doubled", `${where}: ${id}`)
      seen.add(id)
      differences.same(`${where}: ${id}`, `${key} ${n}`, `${one.key} ${one.n}`)
      differences.same(`${where}: the stream of ${id}`, stream, `ledger/${services.name}.events/${one.partition}`)
      if (one.i < (last.get(stream) ?? -1)) differences.add("order", `${where}: ${id} of ${stream}`)
      last.set(stream, one.i)
      const given = numbers.get(stream) ?? new Set()
      numbers.set(stream, given)
      if (given.has(seq)) differences.add("doubled", `${where}: number ${seq} of ${stream}`)
      given.add(seq)
    }
    for (const { id } of expected) if (!seen.has(id)) differences.add("lost", `${where}: ${id}`)
  }
  for (const [stream, given] of numbers)
    differences.same(`${target}: the last number of ${stream}`, Math.max(...given), given.size)
})

const compareTables = async ({ differences, sent, services: { sql } }: Run) => {
  const entries = await sql<
    Array<{ id: string; key: string; n: number }>
  >`select id, key, n from entries where id <> ${marker}`
  const byId = new Map(entries.map((row) => [row.id, row]))
  differences.same("the number of entries", entries.length, sent.length)
  const totals = new Map<string, { n: number; last: string }>()
  for (const { id, key, n } of sent) {
    const row = byId.get(id)
    if (row === undefined) differences.add("lost", `entry ${id}`)
    else differences.same(`entry ${id}`, `${row.key} ${row.n}`, `${key} ${n}`)
    totals.set(key, { n: (totals.get(key)?.n ?? 0) + n, last: id })
  }
  const rows = await sql<
    Array<{ key: string; n: number; last: string }>
  >`select key, n, last from totals where key <> ${marker}`
  differences.same("the number of totals", rows.length, totals.size)
  for (const { key, last, n } of rows)
    differences.same(`the total of ${key}`, `${n} ${last}`, `${totals.get(key)?.n} ${totals.get(key)?.last}`)
  const halted = await sql<Array<{ halted: string }>>`
    select halted from millrace.progress where halted is not null and mode = 'live'
    union all select halted from millrace.relay_position where halted is not null`
  for (const one of halted) differences.add("wrong", `halted: ${one.halted}`)
}

/** Compares everything. No process may run. */
export const compare = async (run: Run): Promise<void> => {
  await compareTables(run)
  await Effect.runPromise(compareTarget(run, "Kafka", (topic) => onKafka(run, topic)))
  await Effect.runPromise(compareTarget(run, "Pulsar", (topic) => onPulsar(run, topic)))
}
