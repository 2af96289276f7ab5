// Notes on Kafka which database of an application publishes to a topic, so that a second one does not publish everything again.
import * as Effect from "effect/Effect"
import { RelayError } from "../../relay/target.ts"
import { failureOf, type KafkaOptions, TransactionalProducer } from "../protocol/protocol.ts"

/** Who wants to publish to which topics. */
export interface TopicClaim {
  readonly application: string
  /** The id of the database. */
  readonly database: string
  readonly topics: ReadonlyArray<string>
  /** Whether topics of another database are taken over. */
  readonly takesOver: boolean
}
/** A topic that another database of the application publishes to. */
export interface OwnedTopic {
  readonly topic: string
  /** The id of that database. */
  readonly database: string
}

/**
 * Notes the database as the one that publishes to the topics, as the metadata of offsets of a group that has the application's name and no members.
 * Returns the first topic that is another database's, in which case nothing is noted; undefined if there is none. Brokers forget the note
 * after a week (`offsets.retention.minutes`), so it is written again at each start and once a day.
 */
export const claimTopics = (
  options: KafkaOptions,
  { application, database, takesOver, topics }: TopicClaim
): Effect.Effect<OwnedTopic | undefined, RelayError> =>
  Effect.tryPromise({
    try: async () => {
      if (topics.length === 0) return undefined
      const group = `millrace-relay-topics/${application}`
      // the process that takes the transactional id fences others that are between reading and writing
      const producer = await TransactionalProducer.take(options, group)
      try {
        const asked = topics.map((topic) => ({ topic, partition: 0 }))
        const found = await producer.offsets(group, asked)
        const other = found.find(({ metadata }) => metadata !== "" && metadata !== database)
        if (other !== undefined && !takesOver) return { topic: other.topic, database: other.metadata }
        const notes = topics.map((topic) => ({ topic, partition: 0, offset: 0, metadata: database }))
        await producer.commit([], new Map([[group, notes]]))
        return undefined
      } finally {
        producer.close()
      }
    },
    catch: (cause) => {
      const { message, retryable } = failureOf(cause)
      return new RelayError({ target: "kafka", operation: "publish", retryable, reason: message, cause })
    }
  })
