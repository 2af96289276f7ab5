// Runs `millrace topics plan|apply|check`: compares the topics of the log with what the application declares, and changes them.
import * as Effect from "effect/Effect"
import { openTopics, specsOf } from "../system/topics.ts"
import { differs, type TopicPlan } from "../log/topic-plan.ts"
import { loadApplication } from "./config.ts"
import { asUnprepared, CommandFailed, exitCodes } from "./command-failure.ts"
import { print } from "./print.ts"
import { planText } from "./tables.ts"

/** The flags of the three commands. */
export interface TopicsFlags {
  readonly data: string
  readonly config: string | undefined
  readonly allowRepartition: boolean
  readonly json: boolean
}

/** The error of `apply` if a topic is refused; undefined if none is. */
const refusalOf = (plans: ReadonlyArray<TopicPlan>, on: string) => {
  const refused = plans.filter(({ action }) => action === "refused")
  const [first] = refused
  if (first === undefined) return undefined
  const grows = refused.every(({ partitions: { from, to } }) => from !== undefined && from < to)
  return new CommandFailed({
    message: `${refused.map(({ topic }) => topic).join(", ")}: refused, so no topic was changed: ${first.notes.join("; ")}`,
    ...(grows && on === "Kafka"
      ? {
          try: "--allow-repartition, if keys may lose their order and every projection over the topic starts over, under its next version or a new name"
        }
      : {})
  })
}

/** Prints the plan, and with `apply` carries it out. `check` exits with 3 if anything differs from the declaration. */
export const topics = Effect.fnUntraced(function* (action: "plan" | "apply" | "check", options: TopicsFlags) {
  const { allowRepartition, config, data, json } = options
  const application = yield* loadApplication(config)
  const { topics, on } = yield* openTopics(application, data, action === "apply")
  const specs = specsOf(application, on)
  const plans = yield* Effect.mapError(topics.plan(specs, { allowRepartition }), asUnprepared)
  const text = json ? JSON.stringify({ log: on, topics: plans, differs: plans.some(differs) }) : planText(on, plans)
  yield* print(text)
  if (action === "check") return plans.some(differs) ? exitCodes.unhealthy : 0
  if (action === "plan") return 0
  const refused = refusalOf(plans, on)
  if (refused !== undefined) return yield* refused
  yield* topics.apply(specs, plans)
  return 0
})
