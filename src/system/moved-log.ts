// Refuses to open a system on Kafka whose events are in the database: positions mean nothing in another log.
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import type { Log } from "../log/log.ts"
import { query, type Sql } from "../postgres/client/client.ts"
import { arrayOf } from "../postgres/client/columns.ts"
import { LogNotMoved } from "./errors.ts"

/** The topics that projections of an application read, as sources or lookups, and that a log on Kafka would have. */
const topicsRead = (application: Application.Any): ReadonlyArray<string> =>
  application.projections.flatMap(({ projection: { enrich, sources } }) => [
    ...sources.flatMap(({ kind, name }) => (kind === "topic" ? [name] : [])),
    ...Object.values(enrich).map(({ topic }) => topic.name)
  ])
const storedTopics = (sql: Sql, topics: ReadonlyArray<string>) =>
  query(
    "read the topics",
    () => sql<Array<{ readonly name: string }>>`
      select distinct t.name from millrace.log_topic t join millrace.log_head h using (topic_id)
      where not t.aggregate and t.name = any (${arrayOf(topics)}::text[]) and h.next_position > 0 order by 1`
  ).pipe(
    Effect.map((rows) => rows.map(({ name }) => name)),
    // the database was not migrated yet, so it has no log
    Effect.catchIf(
      ({ code }) => /^(42P01|42703|3F000)$/.test(code),
      () => Effect.succeed([])
    )
  )

/** Fails with `LogNotMoved` if the database has events of a topic that is read, and the topic on Kafka is empty. */
export const assertLogMoved = Effect.fnUntraced(function* (
  application: Application.Any,
  sql: Sql,
  kafka: Log["Service"]
) {
  for (const topic of yield* storedTopics(sql, [...new Set(topicsRead(application))])) {
    const ends = yield* kafka.ends(topic).pipe(Effect.catchTag("UnknownTopic", () => Effect.succeed([])))
    if (ends.every((end) => end === 0))
      return yield* new LogNotMoved({
        message: `the events of ${topic} are in the database, and the topic on Kafka is empty: projections cannot go on there, because positions do not move from one log to another`,
        try: "unset MILLRACE_KAFKA_BROKERS to go on with the log in the database; to move, use a new database, and send it what 'millrace topics export' prints"
      })
  }
})
