// The error of a topic that a command names and that does not exist, with the name that may have been meant.
import * as Effect from "effect/Effect"
import { aggregatesOf, topicsOf } from "../model/application.ts"
import { adviceFor } from "../text/similar-names.ts"
import { CommandFailed } from "./command-failure.ts"
import { loadApplicationIfAny } from "./config.ts"

/** `stored`: the topics that the log has, as far as that is known. The topics of the application, if there is one, may be meant, too. */
export const unknownTopic = Effect.fnUntraced(function* (
  message: string,
  topic: string,
  stored: ReadonlyArray<string>,
  config?: string
) {
  const application = yield* Effect.orElseSucceed(loadApplicationIfAny(config), () => undefined)
  const declared =
    application === undefined
      ? []
      : [...topicsOf(application).map((one) => one.topic.name), ...aggregatesOf(application).map(({ name }) => name)]
  const advice = adviceFor(topic, [...new Set([...stored, ...declared])])
  return new CommandFailed({ message, ...(advice !== undefined && { try: advice }) })
})
