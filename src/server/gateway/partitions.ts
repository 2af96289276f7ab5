// The number of partitions of each topic, read from the log once and remembered.
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { UnknownTopic, type Log, type LogError } from "../../log/log.ts"

/** Returns a function that resolves to a topic's number of partitions, or to the log's error. Errors are not remembered. */
export const partitionsOf = (
  log: Log["Service"],
  context: Context.Context<never>
): ((topic: string) => Promise<number | LogError | UnknownTopic>) => {
  const known = new Map<string, Promise<number | LogError | UnknownTopic>>()
  return (topic) => {
    const found = known.get(topic)
    if (found !== undefined) return found
    const asked = Effect.runPromiseWith(context)(
      Effect.match(log.bounds(topic), {
        onSuccess: (bounds): number | LogError | UnknownTopic =>
          bounds.length > 0 ? bounds.length : new UnknownTopic({ topic, reason: "the topic has no partition" }),
        onFailure: (error): number | LogError | UnknownTopic => error
      })
    )
    known.set(topic, asked)
    const forget = () => known.delete(topic)
    asked.then((count) => typeof count === "number" || forget(), forget)
    return asked
  }
}
