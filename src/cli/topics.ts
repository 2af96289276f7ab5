// `millrace topics plan|apply|check`: holds the log's topics to what the application declares, and shows everything before it does it.
import * as Effect from "effect/Effect"
import { openTopics, specsOf } from "../system/topics.ts"
import { differs, type TopicPlan } from "../log/topic-plan.ts"
import { loadApplication } from "./config.ts"
import { CommandFailed, exitCodes } from "./command-failure.ts"
import { planText } from "./tables.ts"

/** What the commands were asked for. */
export interface TopicsOptions {
  readonly data: string
  readonly config: string | undefined
  readonly allowRepartition: boolean
  readonly json: boolean
}

const refusal = (plans: ReadonlyArray<TopicPlan>, where: string) => {
  const refused = plans.filter(({ action }) => action === "refused")
  const [first] = refused
  if (first === undefined) return undefined
  const grows = refused.every(({ partitions: { from, to } }) => from !== undefined && from < to)
  return new CommandFailed({
    message: `${refused.map(({ topic }) => topic).join(", ")}: refused, and nothing was changed: ${first.notes.join("; ")}`,
    ...(grows && where === "Kafka"
      ? { try: "--allow-repartition, if keys may lose their order and every projection over the topic is rebuilt" }
      : {})
  })
}

/** Shows what is to be done, and does it where asked to. Exits with 3 where `check` finds that anything differs. */
export const topics = Effect.fnUntraced(function* (doing: "plan" | "apply" | "check", options: TopicsOptions) {
  const { allowRepartition, config, data, json } = options
  const application = yield* loadApplication(config)
  const { topics, where } = yield* openTopics(data)
  const specs = specsOf(application, where)
  const plans = yield* topics.plan(specs, { allowRepartition })
  const print = json
    ? JSON.stringify({ log: where, topics: plans, differs: plans.some(differs) })
    : planText(where, plans)
  yield* Effect.sync(() => process.stdout.write(`${print}\n`))
  if (doing === "check") return plans.some(differs) ? exitCodes.unhealthy : 0
  if (doing === "plan") return 0
  const refused = refusal(plans, where)
  if (refused !== undefined) return yield* refused
  yield* topics.apply(specs, plans)
  return 0
})
