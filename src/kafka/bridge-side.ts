// The Kafka side of a bridge: lists topics, and writes records and positions in one transaction. The bridge reads through the log.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AddressedRecord, KafkaSide, KafkaWriter } from "../bridge/kafka-side.ts"
import { BridgeError } from "../bridge/errors.ts"
import { encodeRecords, headingOf } from "./log/records.ts"
import {
  Client,
  failureOf,
  type GroupOffset,
  type KafkaAdmin,
  type KafkaFailure,
  type KafkaOptions,
  needsPerson,
  register,
  retrying,
  type TransactionBatch,
  TransactionalProducer,
  undecidedEnd,
  withAdmin
} from "./protocol/protocol.ts"

const refused =
  /^(TOPIC_AUTHORIZATION_FAILED|INVALID_TOPIC_EXCEPTION|INVALID_RECORD|POLICY_VIOLATION|UNKNOWN_TOPIC_OR_PARTITION)$/

const kindOf = ({ code, kind }: KafkaFailure): BridgeError["kind"] => {
  if (kind === "fenced" || kind === "tooLarge") return kind
  return refused.test(code) ? "refused" : "other"
}
/** Translates failures of Kafka into the bridge's errors. */
const bridgeError = (operation: string, topic?: string) => (cause: unknown) => {
  const failure = failureOf(cause)
  const kind = kindOf(failure)
  const where = failure.partition?.topic ?? topic
  return new BridgeError({
    side: "kafka",
    operation,
    kind,
    ...(where !== undefined && { topic: where }),
    // a transaction that failed may be repeated without what was refused
    retryable: operation === "commit" || !(needsPerson(failure) || kind === "refused"),
    reason:
      kind === "fenced" ? "another process took the stream over, or the transaction took too long" : failure.message,
    cause
  })
}
const attempt = <A>(operation: string, run: () => Promise<A>, topic?: string): Effect.Effect<A, BridgeError> =>
  Effect.tryPromise({ try: run, catch: bridgeError(operation, topic) })

/** About how many characters a batch takes; topics take a mebibyte by default. */
const batchSize = 500_000
const sizeOf = ({ record: { headers, key, value } }: AddressedRecord) => {
  let size = (key?.length ?? 0) + (value?.length ?? 0) + 50
  for (const name in headers) size += name.length + headers[name]!.length + 4
  return size
}

/** Encodes records as batches; those of a partition keep their order. */
const batchesOf = (records: ReadonlyArray<AddressedRecord>, options: KafkaOptions): ReadonlyArray<TransactionBatch> => {
  const batches: Array<TransactionBatch> = []
  for (const some of Map.groupBy(records, ({ partition, topic }) => `${topic}/${partition}`).values()) {
    const { partition, topic } = some[0]!
    for (let from = 0; from < some.length;) {
      let size = 0
      let to = from
      while (to < some.length && (to === from || size + sizeOf(some[to]!) <= batchSize)) size += sizeOf(some[to++]!)
      const list = some
        .slice(from, to)
        .map(({ record: { eventTime, headers, key, value } }) =>
          Object.assign(headingOf(Object.entries(headers)), { eventTime, partition, key, value })
        )
      const bytes = encodeRecords(list, options.compression ?? "none", Date.now(), true)
      batches.push({ topic, partition, records: list.length, bytes })
      from = to
    }
  }
  return batches
}

const writerOf = (producer: TransactionalProducer, options: KafkaOptions): KafkaWriter => ({
  committedPosition: ({ group, partition, topic }) =>
    attempt("read the position", async () => {
      const [found] = await producer.offsets(group, [{ topic, partition }])
      return found === undefined ? undefined : { offset: found.offset, metadata: found.metadata }
    }),
  partitionCount: (topic) =>
    attempt("look up the topic", async () => (await producer.client.topic(topic)).leaders.length, topic),
  endOffset: (topic, partition) =>
    attempt(
      "ask for the end",
      () =>
        retrying(producer.client, topic, producer.client.requestMs, () =>
          undecidedEnd(producer.client, { topic, partition })
        ),
      topic
    ),
  commit: (records, positions) =>
    attempt("commit", () => {
      const groups = new Map<string, Array<GroupOffset>>()
      for (const { group, metadata, offset, partition, topic } of positions) {
        const list = groups.get(group)
        if (list === undefined) groups.set(group, [{ topic, partition, offset, metadata }])
        else list.push({ topic, partition, offset, metadata })
      }
      return producer.commit(batchesOf(records, options), groups)
    })
})

const asking = <A>(options: KafkaOptions, operation: string, ask: (admin: KafkaAdmin) => Promise<A>) =>
  attempt(operation, () => withAdmin(options, ask))

/** The Kafka side of a bridge. It connects when it is used. */
export const make = (options: KafkaOptions): KafkaSide => {
  register()
  return {
    ping: attempt("reach a broker", async () => {
      const client = new Client(options)
      await client.hello().finally(() => client.close())
    }),
    clusterId: asking(options, "ask for the cluster", (admin) => admin.clusterId()),
    topics: asking(options, "list topics", async (admin) =>
      (await admin.topicNames()).filter((topic) => !topic.startsWith("__"))
    ),
    openWriter: (id): Effect.Effect<KafkaWriter, BridgeError, Scope.Scope> =>
      Effect.acquireRelease(
        attempt("take the transactional id", () => TransactionalProducer.take(options, id)),
        (producer) => Effect.sync(() => producer.close())
      ).pipe(Effect.map((producer) => writerOf(producer, options)))
  }
}
