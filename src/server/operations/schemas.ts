// JSON Schemas of what the routes of operations answer, for /openapi.json and /docs.
import {
  anyObject,
  described,
  flag,
  integer,
  list,
  nullable,
  number,
  object,
  oneOf,
  text,
  time
} from "../http/json-schema.ts"
import type { Json } from "../http/json-schema.ts"

/** The body of every error. */
export const problem = object({ error: object({ code: text, message: text, try: text }), trace_id: text })
/** The responses of a route: what it answers, by status, and the problems that it may have. */
export const responses = (answers: Readonly<Record<number, Json>>, ...statuses: ReadonlyArray<number>): Json => ({
  ...answers,
  ...Object.fromEntries(
    [401, 403, ...statuses].map((status) => [status, { ...problem, description: descriptions[status] ?? "refused" }])
  )
})
const descriptions: Readonly<Record<number, string>> = {
  400: "a parameter or the body cannot be read",
  401: "the credential is missing or not valid",
  403: "the credential has not the scope operate",
  404: "there is nothing with this name",
  409: "refused as things are, or something else is under way; nothing was changed",
  422: "the body does not fit its schema, or makes no sense",
  429: "too many jobs run",
  503: "the database or the log does not answer",
  504: "not in time; nothing was changed"
}

/** A command line that does the same as the request. */
export const command = described(text, "the command line that does the same")
/** The parameter of a dry run. */
export const dryRun: Json = {
  type: "boolean",
  default: false,
  description: "true: says what would be done, and changes nothing"
}

const finding = object({ kind: text, message: text }, { try: text, projection: text, name: text })
const ago = described(integer, "how long ago that was, in milliseconds")
/** How long the newest record and the newest message waited. */
const delays = object({
  projections: described(
    list(
      object({
        projection: text,
        topic: text,
        partition: integer,
        source_ms: described(nullable(integer), "from the time of the event until the log had it; null if not known"),
        projection_ms: described(integer, "from the append to the log until the commit of its rows"),
        ago_ms: ago
      })
    ),
    "the newest record that each live build has processed of each topic; inline builds commit with the append, and are left out"
  ),
  relays: described(
    list(
      object({
        target: text,
        relay_ms: described(integer, "from the commit of the rows until the target had the messages"),
        ago_ms: ago
      })
    ),
    "the newest messages that each relay has published"
  )
})
/** The status of the system; `reason` if it cannot be read. */
export const status = object(
  { healthy: flag },
  {
    problems: list(finding),
    notices: list(finding),
    reason: text,
    dead_letters: integer,
    parked_messages: integer,
    delays
  }
)
/** What an application declares. */
export const application = object({
  name: text,
  topics: list(
    object({
      name: text,
      kind: oneOf("events", "lookup", "derived", "aggregate", "undeclared"),
      types: described(list(text), "the types of its events; none if all values have one shape"),
      dead_letters: described(flag, "whether projections put events there that failed"),
      relays: described(list(text), "the relay targets that its messages go to")
    })
  ),
  aggregates: list(object({ name: text, commands: list(text), events: list(text) })),
  projections: list(
    object({
      name: text,
      version: integer,
      lifecycle: oneOf("async", "inline", "live"),
      reads: described(list(text), "the topics and aggregates that it processes"),
      looks_up: described(list(text), "the topics that it looks values up in"),
      tables: list(text),
      windows: list(text),
      publishes: described(list(text), "the topics that it publishes to, without those for dead letters"),
      fails_to: described(list(text), "the topics for its dead letters"),
      sends_to: described(list(text), "the aggregates that it sends commands to: then it is a policy")
    })
  ),
  views: list(text),
  relays: described(list(text), "the names of the relay targets"),
  bridge_rules: described(
    list(object({ name: text, from: text, to: text })),
    "what the rules beside the application mirror between Kafka and Pulsar, by millrace bridge"
  )
})
/** The processes of the system. */
export const processes = object({
  processes: list(
    object({
      id: text,
      host: text,
      pid: integer,
      roles: list(text),
      projections: list(text),
      relays: list(text),
      started_ms: described(integer, "since when it runs, in milliseconds before now"),
      seen_ms: described(integer, "when it was seen last, in milliseconds before now"),
      running: flag,
      failing: list(object({ what: text, reason: text, since_ms: integer }))
    })
  )
})

/** A job, with the schema of its result. */
export const jobOf = (kind: Json, result: Json): Json =>
  object({
    id: text,
    kind,
    subject: described(text, "the projection, the read model, or the key"),
    command,
    by: described(text, "who started it"),
    state: oneOf("running", "done", "failed"),
    started_at: time,
    ended_at: nullable(time),
    progress: described({ anyOf: [anyObject, { type: "null" }] }, "how far it is; null if it does not say"),
    error: nullable(object({ code: text, message: text, try: text })),
    result: nullable(result)
  })

/** What a rebuild would do. */
export const rebuildPlan = object({
  projection: text,
  build: integer,
  version: integer,
  live: object({ build: integer, version: integer }),
  continues: flag,
  copies: flag,
  from: nullable(time),
  until: nullable(time),
  keys: nullable(object({ given: integer, found: integer, unknown: integer, events: integer })),
  topics: list(object({ topic: text, partitions: integer, events: integer })),
  events: integer,
  events_per_second: number,
  rate_from: oneOf("measured", "asked", "assumed"),
  seconds: number,
  seconds_at_best: number,
  disk_bytes: number,
  muted: list(text),
  not_reproduced: list(text),
  refused_views: list(anyObject)
})
/** What a rebuild did. */
export const rebuilt = object(
  {
    projection: text,
    build: integer,
    live: integer,
    state: oneOf("done"),
    events: integer,
    seconds: number,
    events_per_second: number
  },
  { from: time, until: time, keys: anyObject, tables: list(anyObject) }
)
/** What a promotion did. */
export const promoted = object(
  { projection: text, state: oneOf("promoted", "ready", "corrected") },
  {
    from: described(integer, "the build that was live"),
    to: described(integer, "the build that replaced it"),
    pauseMs: number,
    gate: oneOf("closed", "open"),
    holders: list(anyObject),
    stale: list(text),
    notReproduced: list(text),
    next: list(text),
    corrections: anyObject
  }
)
const counts = {
  missing: integer,
  extra: integer,
  changed: integer,
  rounding: integer,
  rows: object({ live: integer, candidate: integer }),
  samples: list(
    object({
      kind: oneOf("missing", "extra", "changed", "rounding"),
      key: anyObject,
      live: nullable(anyObject),
      candidate: nullable(anyObject)
    })
  )
}
/** What differs between two builds. */
export const difference = object({
  projection: text,
  live: integer,
  candidate: integer,
  tables: list(
    object({
      name: text,
      ...counts,
      notCompared: nullable(text),
      onlyIn: nullable(text),
      onlyLive: list(text),
      onlyCandidate: list(text),
      retyped: list(anyObject)
    })
  ),
  late: object(counts),
  deadLetters: object(counts),
  lookupDeadLetters: object({ live: integer, candidate: integer }),
  messages: nullable(list(object({ topic: text, live: integer, candidate: integer }))),
  lookups: list(text),
  frozenMs: integer,
  equal: flag
})
/** Why a row is as it is, for each projection that writes it. */
export const explanations = list(
  object({
    projection: text,
    version: integer,
    build: integer,
    live: flag,
    table: text,
    key: anyObject,
    events: list(
      object(
        { topic: text, partition: integer, position: integer, outcome: text, event_time: number, value: {} },
        { type: nullable(text), key: nullable(text), event_id: nullable(text), trace_id: nullable(text) }
      )
    ),
    omitted: integer,
    replayed: nullable(anyObject),
    stored: nullable(anyObject),
    same: nullable(flag),
    differences: list(object({ column: text, stored: {}, replayed: {}, rounding: flag })),
    partitions: list(anyObject),
    trace_ids: list(text),
    notes: list(text)
  })
)
const row = nullable(anyObject)
/** What the events of a key did to its rows, in each projection that writes rows. */
export const histories = object({
  key: text,
  projections: list(
    object(
      { projection: text, problem: described(nullable(text), "why it has no history here; null if it has one") },
      {
        version: integer,
        build: integer,
        rows: list(
          object({
            id: integer,
            table: text,
            key: anyObject,
            other_keys: described(integer, "how many events of other keys wrote it"),
            before: described(row, "the row before the first of the events; null if there was none"),
            replayed: described(row, "what the replay gives"),
            stored: described(row, "what the database has"),
            same: described(nullable(flag), "whether they are the same; null if they cannot be compared")
          })
        ),
        events: list(
          object({
            topic: text,
            partition: integer,
            position: integer,
            retries: described(nullable(integer), "the position of the dead letter that the record retries"),
            key: nullable(text),
            type: nullable(text),
            event_id: nullable(text),
            event_time: number,
            appended_at: nullable(number),
            outcome: oneOf("applied", "without_effect", "late", "dead_letter", "duplicate"),
            changes: described(
              list(object({ row: described(integer, "the id of a row"), value: row })),
              "the rows that it changed, as they were after it; null: it deleted the row"
            )
          })
        ),
        omitted: described(integer, "how many earlier events were left out"),
        complete: described(flag, "whether all partitions were replayed, and not only those of the key"),
        left: described(integer, "how many records were not replayed, because the request does not allow so many"),
        partitions: list(anyObject),
        notes: described(list(text), "what the replay cannot know")
      }
    )
  )
})
/** The responses with a job of some kinds: it has ended, or it still runs. */
export const jobAnswers = (kinds: ReadonlyArray<string>, result: Json): Readonly<Record<number, Json>> => {
  const job = jobOf(oneOf(...kinds), result)
  return { 200: described(job, "it has ended"), 202: described(job, "it runs; poll it at Location") }
}
/** A job of any kind. */
export const anyJob = jobOf(oneOf("plan", "rebuild", "diff", "promote", "explain", "history"), {
  anyOf: [rebuildPlan, rebuilt, difference, promoted, explanations, histories]
})
