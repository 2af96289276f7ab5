// Translates failures of Kafka into errors of the log's port, at the adapter's door.
import * as Effect from "effect/Effect"
import { LogError, UnknownTopic } from "../../log/log.ts"
import { unknownTopic } from "../../log/rules.ts"
import { failureOf } from "../protocol/protocol.ts"

/** A failure of Kafka as the log's error. A `LogError` stays as it is. */
export const logError =
  (operation: LogError["operation"], topic: string) =>
  (cause: unknown): LogError => {
    if (cause instanceof LogError) return cause
    const { message, retryable } = failureOf(cause)
    return new LogError({ operation, topic, retryable, reason: message, cause })
  }

/** The same for a call about one topic: if the topic does not exist the error is an `UnknownTopic`. Both of the log's errors stay as they are. */
export const topicError =
  (operation: LogError["operation"], topic: string) =>
  (cause: unknown): LogError | UnknownTopic => {
    if (cause instanceof UnknownTopic) return cause
    const { code, kind } = failureOf(cause)
    const isMissing = kind === "unknownTopic" || code === "UNKNOWN_TOPIC_OR_PARTITION"
    return isMissing && !(cause instanceof LogError) ? unknownTopic(topic) : logError(operation, topic)(cause)
  }

/** Runs a promise of Kafka's about one topic, and fails with the log's errors. */
export const attempt = <A>(
  operation: LogError["operation"],
  topic: string,
  run: (signal: AbortSignal) => Promise<A>
): Effect.Effect<A, LogError | UnknownTopic> => Effect.tryPromise({ try: run, catch: topicError(operation, topic) })
