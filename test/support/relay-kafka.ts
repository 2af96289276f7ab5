// What tests of the relay to Kafka share: a database with an outbox, topics on a broker, and what a reader of committed records finds there.
import * as Effect from "effect/Effect"
import * as KafkaLog from "../../src/kafka/log.ts"
import type { Log, LogRecord } from "../../src/log.ts"
import { clientOf } from "../../src/kafka/driver.ts"
import type { Options } from "../../src/kafka/options.ts"

/** A topic of a test's own; not compacted, kept for ever. */
export const declare = (log: Log["Service"], name: string, partitions: number) =>
  log.declare([{ name, partitions, compacted: false, retentionMs: undefined }])

/** Ends of partitions, what transactions under way hold back included. */
const endsOf = async (options: Options, topic: string) => {
  const admin = clientOf(options).admin()
  await admin.connect()
  try {
    return new Map((await admin.fetchTopicOffsets(topic)).map(({ high, partition }) => [partition, Number(high)]))
  } finally {
    await admin.disconnect()
  }
}
/** All committed records of a topic, a partition after the other, once no transaction is under way there. */
export const recordsOf = Effect.fnUntraced(function* (options: Options, log: Log["Service"], topic: string) {
  while (true) {
    const ends = yield* Effect.promise(() => endsOf(options, topic))
    const bounds = yield* log.bounds(topic)
    if (bounds.every(({ end, partition }) => end === ends.get(partition))) break
    yield* Effect.sleep(5)
  }
  const all: Array<LogRecord> = []
  for (const { end, partition, start } of yield* log.bounds(topic)) {
    for (let position = start; position < end;) {
      const batch = yield* log.read(topic, partition, position)
      all.push(...batch.records)
      position = batch.next
    }
  }
  return all
})
/** A log on brokers, for the length of a scope. */
export const logOn = (options: Options) => KafkaLog.make(options)
/** Sequences by stream and partition, in the order of the partition. */
export const sequencesOf = (records: ReadonlyArray<LogRecord>) => {
  const found: Record<string, Array<number>> = {}
  for (const { headers } of records) (found[headers["millrace-stream"]!] ??= []).push(Number(headers["millrace-seq"]))
  return found
}
