// Compares the derived topics, as a consumer reads them, with the fold of the log, including the order and every sequence number.
import type { Printed } from "./consumer.ts"
import type { Differences } from "../harness/differences.ts"
import type { Alert, Fold, Score, Window } from "./fold.ts"

/** The derived topics, including the one of dead deadLetters. */
export const topics = ["signals.scores.v1", "alerts.v1", "alerts.analytics.v1", "events.raw.v1.signals.dlq"] as const
export type Output = (typeof topics)[number]

type Value = Readonly<Record<string, string | number>>
/** Records that must come in exactly this order. From the first one that does not, all are kept to find out what is wrong. */
interface Sequence<A extends Score> {
  readonly expected: ReadonlyArray<A>
  matched: number
  readonly rest: Array<string>
}
const sequence = <A extends Score>(expected: ReadonlyArray<A>): Sequence<A> => ({ expected, matched: 0, rest: [] })

const scoreText = ({ at, entity, id, score }: Score) => `${id} ${entity} ${score} ${at}`
const alertText = (alert: Alert) => `${scoreText(alert)} ${alert.threshold} ${alert.segment}`

/** Compares how often each text occurs: what is missing, and what is there too often. */
const compare = (expected: ReadonlyArray<string>, found: ReadonlyArray<string>) => {
  const counts = new Map<string, number>()
  for (const text of expected) counts.set(text, (counts.get(text) ?? 0) + 1)
  for (const text of found) counts.set(text, (counts.get(text) ?? 0) - 1)
  const all = [...counts]
  return { lost: all.filter(([, count]) => count > 0), extra: all.filter(([, count]) => count < 0) }
}

/** Whether a record tells a stream's time and no message. */
const isMark = ({ headers, value }: Pick<Printed, "headers" | "value">): boolean =>
  value === null && headers["millrace-time"] !== undefined
/** The outputs of a run. Call `take` with the records of each topic, then `finish`. */
export class Outputs {
  private readonly fold: Fold
  private readonly differences: Differences
  private readonly scores: ReadonlyArray<Sequence<Score>>
  private readonly alerts: ReadonlyArray<Sequence<Alert>>
  /** How many events the last record of each window counted. */
  private readonly last = new Map<string, number>()
  /** The sequence numbers that were there, by stream. */
  private readonly numbers = new Map<string, Set<number>>()
  private readonly deadLetters = new Set<string>()
  private readonly places = new Map<string, number>()

  constructor(fold: Fold, differences: Differences) {
    this.fold = fold
    this.differences = differences
    this.scores = fold.partitions.map(({ scores }) => sequence(scores))
    this.alerts = fold.partitions.map(({ alerts }) => sequence(alerts))
  }

  take(topic: Output, record: Printed): void {
    this.number(topic, record)
    if (topic === "events.raw.v1.signals.dlq") return this.takeDeadLetter(record)
    if (isMark(record)) return
    const value = JSON.parse(record.value ?? "null") as Value
    this.differences.same(`the key of ${topic}/${record.partition} ${record.offset}`, record.key, value["entity_id"])
    if (topic === "alerts.analytics.v1") this.window(record, value)
    else if (topic === "signals.scores.v1") this.next(this.scores, topic, record, scoreText, value)
    else this.next(this.alerts, topic, record, alertText, value)
  }

  /** The sequence numbers of a stream are 1..n over all its topics, and ascend within each partition. */
  private number(topic: Output, { headers, key, offset, partition, value }: Printed) {
    const stream = headers["millrace-stream"] ?? ""
    const seq = Number(headers["millrace-seq"])
    const what = `${topic}/${partition} ${offset}: number ${seq} of ${stream}`
    const isDeadLetter = topic === "events.raw.v1.signals.dlq"
    const source = isDeadLetter ? Number((JSON.parse(value ?? "null") as Value)["partition"]) : partition
    // a dead letter whose key is not text has the key's JSON as its key, which decides on another partition
    const mayMove = isDeadLetter && key?.startsWith('"') === true
    // each stream sends its time to all partitions of the alerts, which a policy reads
    const isOther = isMark({ headers, value })
      ? !/^signals\/events\.raw\.v1\/\d+$/.test(stream)
      : stream !== `signals/events.raw.v1/${source}` || (source !== partition && !mayMove)
    if (isOther) this.differences.add("wrong", `${what} belongs to another partition`)
    let numbers = this.numbers.get(stream)
    if (numbers === undefined) this.numbers.set(stream, (numbers = new Set()))
    if (numbers.has(seq)) this.differences.add("doubled", what)
    numbers.add(seq)
    const place = `${topic}/${partition}/${stream}`
    if (seq <= (this.places.get(place) ?? 0)) this.differences.add("order", `${what} came after a higher one`)
    this.places.set(place, Math.max(seq, this.places.get(place) ?? 0))
  }

  private next<A extends Score>(
    all: ReadonlyArray<Sequence<A>>,
    topic: Output,
    { headers, partition }: Printed,
    textOf: (of: A) => string,
    value: Value
  ) {
    const one = all[partition]!
    const found = [value["event_id"] ?? value["alert_id"], value["entity_id"], value["score"], value["occurred_at"]]
    if (topic === "alerts.v1") found.push(value["threshold"], value["segment"])
    const text = found.join(" ")
    const expected = one.expected[one.matched]
    if (one.rest.length === 0 && expected !== undefined && textOf(expected) === text) {
      one.matched++
      this.differences.same(`the trace of ${text} in ${topic}`, headers["trace_id"], expected.trace)
    } else one.rest.push(text)
  }

  private takeDeadLetter({ offset, value }: Printed) {
    const { partition, position } = JSON.parse(value ?? "null") as Value
    const text = `${partition} ${position}`
    const known = this.fold.partitions[Number(partition)]?.dead.has(Number(position)) === true
    if (this.deadLetters.has(text)) this.differences.add("doubled", `dead letter ${text} in record ${offset}`)
    else if (!known)
      this.differences.add("wrong", `dead letter ${text} in record ${offset} is of an event that is not dead`)
    this.deadLetters.add(text)
  }
  private window({ offset, partition }: Printed, value: Value) {
    const { alerts, entity_id, events, score_max, score_sum, window_size, window_start } = value
    const key = `${entity_id} ${window_size} ${window_start}`
    const what = `window ${key} in record ${partition}/${offset}`
    const window = this.fold.windows.get(key)
    if (window === undefined) return this.differences.add("wrong", `${what} counts nothing that is in the log`)
    this.differences.same(`the partition of ${what}`, partition, window.partition)
    const count = Number(events)
    const before = this.last.get(key) ?? 0
    if (count === before) this.differences.add("doubled", `${what}: again ${count} events`)
    if (count < before) this.differences.add("order", `${what} goes back from ${before} events to ${count}`)
    this.last.set(key, Math.max(before, count))
    if (count > window.sum.length)
      return this.differences.add("doubled", `${what} counts ${count} events of ${window.sum.length}`)
    const expected = [window.alerts[count - 1], window.sum[count - 1], window.max[count - 1]].join(" ")
    this.differences.same(
      `what ${what} has of its first ${count} events`,
      [alerts, score_sum, score_max].join(" "),
      expected
    )
  }

  /** Compares what is only known at the end. `published` has the last sequence number of each stream, by partition. */
  finish(published: ReadonlyMap<number, number>): void {
    for (const [partition, one] of this.scores.entries()) this.settle(`scores/${partition}`, one, scoreText)
    for (const [partition, one] of this.alerts.entries()) this.settle(`alerts/${partition}`, one, alertText)
    for (const [partition, { dead }] of this.fold.partitions.entries())
      for (const offset of dead)
        if (!this.deadLetters.has(`${partition} ${offset}`))
          this.differences.add("lost", `dead letter ${partition} ${offset}`)
    for (const [key, window] of this.fold.windows) this.settleWindow(key, window)
    for (const [partition, n] of published) {
      const numbers = this.numbers.get(`signals/events.raw.v1/${partition}`) ?? new Set()
      for (let seq = 1; seq <= n; seq++)
        if (!numbers.has(seq)) this.differences.add("lost", `number ${seq} of ${n} of stream ${partition}`)
      if (numbers.size > n) this.differences.add("doubled", `stream ${partition}: ${numbers.size} numbers up to ${n}`)
    }
  }
  private settle<A extends Score>(what: string, one: Sequence<A>, textOf: (of: A) => string) {
    const expected = one.expected.slice(one.matched).map(textOf)
    const { extra, lost } = compare(expected, one.rest)
    for (const [text, count] of lost) this.differences.add("lost", `${what}: ${text}`, count)
    const known = new Set(extra.length === 0 ? [] : one.expected.map(textOf))
    for (const [text, count] of extra)
      this.differences.add(known.has(text) ? "doubled" : "wrong", `${what}: ${text}`, -count)
    if (lost.length + extra.length === 0 && one.rest.length > 0)
      this.differences.add("order", `${what}: from ${one.rest[0]} on, where ${expected[0]} should be`)
  }
  private settleWindow(key: string, { sum }: Window) {
    const last = this.last.get(key) ?? 0
    if (last < sum.length)
      this.differences.add("lost", `the last record of window ${key} counts ${last} of ${sum.length} events`)
  }
}
