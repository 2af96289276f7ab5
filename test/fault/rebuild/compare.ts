// Compares the result of a run with what was sent: the read models, and the derived topics on Kafka and Pulsar. Shares no code with the application.
import * as Effect from "effect/Effect"
import { connect } from "../../../src/pulsar/client/cluster.ts"
import { eachMessage } from "../../support/relay-pulsar.ts"
import { eachRecord } from "../../support/relay-kafka.ts"
import { marker } from "./readers.ts"
import type { Run, Sent } from "./run.ts"

/** A message of a derived topic. */
interface Found {
  readonly id: string
  readonly key: string
  readonly n: number
  readonly stream: string
  readonly seq: number
}
type Topic = "copies" | "odd"
const foundOf = (value: string, headers: Readonly<Record<string, string>>): Found => ({
  ...(JSON.parse(value) as Pick<Found, "id" | "key" | "n">),
  stream: headers["millrace-stream"] ?? "",
  seq: Number(headers["millrace-seq"])
})

/** Calls `each` with all messages of a topic. */
type Read = (topic: Topic, each: (found: Found) => void) => Effect.Effect<void, unknown>
const onKafka =
  ({ services: { brokers, log, name } }: Run): Read =>
  (topic, each) =>
    eachRecord({ brokers }, log, `${name}.${topic}`, ({ headers, value }) => each(foundOf(value!, headers)))
const onPulsar =
  ({ services: { name, pulsar } }: Run): Read =>
  (topic, each) =>
    Effect.scoped(
      Effect.flatMap(connect(pulsar), (cluster) =>
        Effect.promise(() =>
          eachMessage(cluster, `persistent://${name}/alerts/${name}.${topic}`, ({ properties, value }) =>
            each(foundOf(value, properties))
          )
        )
      )
    )

/** Each event that belongs there is there once, in the order of its partition, and the numbers of a stream are 1..n over both topics. */
const compareTarget = Effect.fnUntraced(function* (run: Run, target: string, read: Read) {
  const { differences, sent, services } = run
  const numbers = new Map<string, Set<number>>()
  for (const topic of ["copies", "odd"] as const) {
    const where = `${target} ${topic}`
    const belongs = (one: Sent) => topic === "copies" || one.n % 2 === 1
    const seen = new Set<number>()
    const last = new Map<string, number>()
    yield* read(topic, ({ id, key, n, seq, stream }) => {
      const i = Number(id.slice(1))
      const one = sent[i]
      if (one?.id !== id || !belongs(one)) return differences.add("wrong", `${where}: ${id} does not belong there`)
      if (seen.has(i)) differences.add("doubled", `${where}: ${id}`)
      seen.add(i)
      differences.same(`${where}: ${id}`, `${key} ${n}`, `${one.key} ${one.n}`)
      differences.same(`${where}: the stream of ${id}`, stream, `ledger/${services.name}.events/${one.partition}`)
      if (i < (last.get(stream) ?? -1)) differences.add("order", `${where}: ${id} of ${stream}`)
      last.set(stream, i)
      const given = numbers.get(stream) ?? new Set()
      numbers.set(stream, given)
      if (given.has(seq)) differences.add("doubled", `${where}: number ${seq} of ${stream}`)
      given.add(seq)
    })
    for (const [i, one] of sent.entries())
      if (belongs(one) && !seen.has(i)) differences.add("lost", `${where}: ${one.id}`)
    run.note(`messages compared on ${target}`, seen.size)
  }
  for (const [stream, given] of numbers) {
    let most = 0
    for (const seq of given) most = Math.max(most, seq)
    differences.same(`${target}: the last number of ${stream}`, most, given.size)
  }
})

const compareTables = async ({ differences, sent, services: { sql } }: Run) => {
  const found = new Set<string>()
  const entries = sql<
    Array<{ id: string; key: string; n: number }>
  >`select id, key, n from entries where id <> ${marker}`
  for await (const rows of entries.cursor(10_000))
    for (const { id, key, n } of rows) {
      const one = sent[Number(id.slice(1))]
      found.add(id)
      differences.same(`entry ${id}`, `${key} ${n}`, `${one?.key} ${one?.n}`)
    }
  differences.same("the number of entries", found.size, sent.length)
  const totals = new Map<string, { n: number; last: string }>()
  for (const { id, key, n } of sent) {
    if (!found.has(id)) differences.add("lost", `entry ${id}`)
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
  await Effect.runPromise(compareTarget(run, "Kafka", onKafka(run)))
  await Effect.runPromise(compareTarget(run, "Pulsar", onPulsar(run)))
}
