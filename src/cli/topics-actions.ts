// Runs `millrace topics list|plan|apply|check`: shows the topics of the log, compares them with what the application declares, and changes them.
import * as Effect from "effect/Effect"
import { openTopics, specsOf } from "../system/topics.ts"
import { differs, type TopicPlan } from "../log/topic-plan.ts"
import { loadApplication } from "./config.ts"
import { asUnprepared, CommandFailed, exitCodes } from "./command-failure.ts"
import { print } from "./print.ts"
import { planText, tableOf } from "./tables.ts"
import { assertOwn } from "../system/identity.ts"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { openLog } from "../system/open-log.ts"
import { type ListedTopic, listTopics } from "../system/topic-list.ts"

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

const who = (names: ReadonlyArray<string>, nobody: string) => (names.length === 0 ? nobody : names.join(", "))
const rowOf = ({ bounds, compacted, kind, readBy, topic, writtenBy }: ListedTopic) => [
  topic,
  compacted && kind !== "lookup" ? `${kind}, compacted` : kind,
  bounds?.length ?? "",
  bounds === undefined ? "not created" : bounds.map(({ end, partition }) => `${partition}:${end}`).join(" "),
  who(writtenBy, kind === "undeclared" ? "" : "clients"),
  who(readBy, "nobody")
]
const jsonOf = ({ bounds, compacted, kind, readBy, topic, writtenBy }: ListedTopic) => ({
  topic,
  kind,
  compacted,
  partitions: bounds ?? null,
  written_by: writtenBy,
  read_by: readBy
})

/** Prints the topics with their partitions and ends, what they are, and who reads and writes them. */
export const list = Effect.fnUntraced(function* ({ config, data, json }: Omit<TopicsFlags, "allowRepartition">) {
  const application = yield* loadApplication(config)
  const database = Effect.gen(function* () {
    yield* assertDatabaseExists(data)
    const { sql } = yield* openDatabase(data, "join", { max: 2 })
    yield* assertOwn(application, sql)
    return sql
  })
  const opened = yield* openLog(database)
  const topics = yield* Effect.mapError(listTopics(application, opened), asUnprepared)
  yield* print(
    json
      ? JSON.stringify({ log: opened.on, topics: topics.map(jsonOf) })
      : `Topics on ${opened.on}\n${tableOf(["topic", "kind", "partitions", "ends (partition:next position)", "written by", "read by"], topics.map(rowOf))}`
  )
  return 0
})
