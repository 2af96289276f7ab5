// Kafka as one end of a bridge: which topics there are, and transactions that write records with a position. Reading is the log's.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AddressedRecord, KafkaSide, KafkaWriter } from "../bridge/kafka-side.ts"
import { BridgeError } from "../bridge/errors.ts"
import { UnknownTopic } from "../log/log.ts"
import { Client, isMoved, retrying } from "./protocol/client.ts"
import { register } from "./protocol/compression.ts"
import { clientOf } from "./protocol/kafkajs.ts"
import { encode } from "./protocol/batch-encode.ts"
import { headingOf } from "./protocol/headers.ts"
import { reasonOf, typeOf } from "./protocol/errors.ts"
import { undecidedEnd } from "./protocol/fetch.ts"
import type { Options } from "./protocol/options.ts"
import {
  type Batch,
  isFenced,
  type Offset,
  PartitionRefused,
  TransactionalProducer
} from "./protocol/transactional-producer.ts"

const tooLarge = /^(MESSAGE_TOO_LARGE|RECORD_LIST_TOO_LARGE)$/
const refused =
  /^(TOPIC_AUTHORIZATION_FAILED|INVALID_TOPIC_EXCEPTION|INVALID_RECORD|POLICY_VIOLATION|UNKNOWN_TOPIC_OR_PARTITION)$/
/** What a person must set right; anything else a new producer may mend. */
const fatal =
  /^(SASL_.*|GROUP_AUTHORIZATION_FAILED|CLUSTER_AUTHORIZATION_FAILED|TRANSACTIONAL_ID_AUTHORIZATION_FAILED|UNSUPPORTED_.*|ENOTFOUND|CERT_.*|SELF_SIGNED.*|UNABLE_TO_.*|ERR_.*)$/

const kindOf = (cause: unknown): BridgeError["kind"] => {
  const type = typeOf(cause)
  if (isFenced(cause)) return "fenced"
  if (cause instanceof UnknownTopic) return "refused"
  if (tooLarge.test(type)) return "tooLarge"
  return refused.test(type) &&
    !(cause instanceof PartitionRefused && isMoved(cause) && type !== "UNKNOWN_TOPIC_OR_PARTITION")
    ? "refused"
    : "other"
}
const failure = (operation: string, topic?: string) => (cause: unknown) => {
  const kind = kindOf(cause)
  const [, told] = reasonOf(cause)
  const reason = kind === "fenced" ? "another process took the stream over, or the transaction took too long" : told
  const at = cause instanceof PartitionRefused ? cause.topic : topic
  return new BridgeError({
    side: "kafka",
    operation,
    kind,
    ...(at !== undefined && { topic: at }),
    // a transaction that failed may be tried anew, without what was refused
    retryable: operation === "commit" || !(fatal.test(typeOf(cause)) || kind === "refused"),
    reason,
    cause
  })
}
const attempt = <A>(operation: string, run: () => Promise<A>, topic?: string): Effect.Effect<A, BridgeError> =>
  Effect.tryPromise({ try: run, catch: failure(operation, topic) })

/** A batch takes so many characters, about; topics take a mebibyte unless told. */
const batchSize = 500_000
const sizeOf = ({ record: { headers, key, value } }: AddressedRecord) => {
  let size = (key?.length ?? 0) + (value?.length ?? 0) + 50
  for (const name in headers) size += name.length + headers[name]!.length + 4
  return size
}

/** Records as batches; those of a partition in their order. */
const batchesOf = (records: ReadonlyArray<AddressedRecord>, options: Options): ReadonlyArray<Batch> => {
  const batches: Array<Batch> = []
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
      const bytes = encode(list, options.compression ?? "none", Date.now(), true)
      batches.push({ topic, partition, records: list.length, bytes })
      from = to
    }
  }
  return batches
}

const writerOf = (producer: TransactionalProducer, options: Options): KafkaWriter => ({
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
      const groups = new Map<string, Array<Offset>>()
      for (const { group, metadata, offset, partition, topic } of positions) {
        const list = groups.get(group)
        if (list === undefined) groups.set(group, [{ topic, partition, offset, metadata }])
        else list.push({ topic, partition, offset, metadata })
      }
      return producer.commit(batchesOf(records, options), groups)
    })
})

/** Asks the cluster something over a connection of its own. */
const asking = <A>(
  options: Options,
  operation: string,
  ask: (admin: ReturnType<ReturnType<typeof clientOf>["admin"]>) => Promise<A>
) =>
  attempt(operation, async () => {
    const admin = clientOf(options).admin()
    await admin.connect()
    try {
      return await ask(admin)
    } finally {
      await admin.disconnect()
    }
  })

/** Kafka for a bridge. It connects when it is used. */
export const make = (options: Options): KafkaSide => {
  register()
  return {
    ping: attempt("reach a broker", async () => {
      const client = new Client(options)
      await client.hello().finally(() => client.close())
    }),
    clusterId: asking(options, "ask for the cluster", async (admin) => (await admin.describeCluster()).clusterId),
    topics: asking(options, "list topics", async (admin) =>
      (await admin.listTopics()).filter((topic) => !topic.startsWith("__"))
    ),
    openWriter: (id): Effect.Effect<KafkaWriter, BridgeError, Scope.Scope> =>
      Effect.acquireRelease(
        attempt("take the transactional id", () => TransactionalProducer.take(options, id)),
        (producer) => Effect.sync(() => producer.close())
      ).pipe(Effect.map((producer) => writerOf(producer, options)))
  }
}
