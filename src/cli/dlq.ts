// Defines the command line of `millrace dlq`. What its commands do is in dlq-actions.ts, which is loaded when one of them runs.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, optionalText, ownConfig, runToExitCode, toggle } from "./flags.ts"

const statuses = ["parked", "skipped", "retrying", "retried", "discarded"] as const
const filters = {
  kind: optionalText(
    "kind",
    "Only these kinds, separated by commas: projection, subscription, relay, bridge; default: all"
  ),
  subscription: optionalText("subscription", "Only messages that this subscription could not process"),
  projection: optionalText("projection", "Only events and messages of this projection"),
  build: Flag.Int("build").pipe(
    Flag.withDescription("Only events of this build of the projection, by its number; needs --projection"),
    Flag.optional
  ),
  target: optionalText("target", "Only messages of the relay to this target: kafka, pulsar"),
  bridge: optionalText("bridge", "Only records of the bridge of this name"),
  rule: optionalText("rule", "Only records that a bridge could not mirror by this rule"),
  topic: optionalText("topic", "Only what comes from this topic"),
  key: optionalText("key", "Only what has this key"),
  error: optionalText("error", "Only what failed with this error, named as in the output of list"),
  since: optionalText("since", 'Only what failed since then: a duration before now such as "2 hours", or a date'),
  rules: optionalText(
    "rules",
    "File of the bridge's rules, as for millrace bridge; default: millrace.bridge.json, .ts, millrace.config.ts"
  )
}
const bulk = {
  ids: Argument.String("id").pipe(Argument.withDescription("Ids, as list prints them"), Argument.variadic()),
  ...filters,
  status: optionalText(
    "status",
    "Only these statuses of open ones, separated by commas: parked, skipped, retrying; default: all open ones"
  ),
  all: toggle("all", "All open dead letters; needed if neither ids nor filters are given"),
  limit: Flag.Int("limit").pipe(
    Flag.withDescription("At most this many of each kind, the oldest first; default: 1000"),
    Flag.withDefault(1_000)
  ),
  dryRun: toggle("dry-run", "Print which dead letters would be taken, and change nothing")
}
const withoutOptions = <
  F extends { readonly [K in Exclude<keyof typeof filters, "build">]: Option.Option<string> } & {
    readonly build: Option.Option<number>
  }
>(
  flags: F
) => ({
  ...flags,
  kind: Option.getOrUndefined(flags.kind),
  subscription: Option.getOrUndefined(flags.subscription),
  rule: Option.getOrUndefined(flags.rule),
  rules: Option.getOrUndefined(flags.rules),
  projection: Option.getOrUndefined(flags.projection),
  build: Option.getOrUndefined(flags.build),
  target: Option.getOrUndefined(flags.target),
  bridge: Option.getOrUndefined(flags.bridge),
  topic: Option.getOrUndefined(flags.topic),
  key: Option.getOrUndefined(flags.key),
  error: Option.getOrUndefined(flags.error),
  since: Option.getOrUndefined(flags.since)
})
const bulkOf = <F extends Parameters<typeof withoutOptions>[0] & { readonly status: Option.Option<string> }>(
  flags: F
) => ({
  ...withoutOptions(flags),
  status: Option.getOrUndefined(flags.status)
})
const actions = Effect.promise(() => import("./dlq-actions.ts"))

const list = Command.make(
  "list",
  {
    data,
    config: ownConfig,
    ...filters,
    status: Flag.String("status").pipe(
      Flag.withDescription(
        `Only these statuses, separated by commas: ${statuses.join(", ")}; default: parked,retrying`
      ),
      Flag.withDefault("parked,retrying")
    ),
    limit: Flag.Int("limit").pipe(
      Flag.withDescription("At most this many, the newest first; default: 50"),
      Flag.withDefault(50)
    ),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(actions, (module) =>
        module.list({ ...withoutOptions(flags), config: Option.getOrUndefined(flags.config), ids: [] })
      )
    )
).pipe(
  Command.withDescription("List dead letters with the reason of each: what could not be processed, sent or mirrored"),
  Command.withExamples([
    { command: "millrace dlq list --projection signals --since '1 day'", description: "What failed in one projection" }
  ])
)

const show = Command.make(
  "show",
  {
    data,
    config: ownConfig,
    id: Argument.String("id").pipe(Argument.withDescription("An id, as list prints it")),
    rules: filters.rules,
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(actions, (module) =>
        module.show({
          ...flags,
          config: Option.getOrUndefined(flags.config),
          rules: Option.getOrUndefined(flags.rules)
        })
      )
    )
).pipe(
  Command.withDescription(
    "Print all that is known of one dead letter: value, headers, error, position, attempts, trace id"
  )
)

const retry = Command.make("retry", { data, config, ...bulk, json }, (flags) =>
  runToExitCode(
    Effect.flatMap(actions, (module) => module.retry({ ...bulkOf(flags), config: Option.getOrUndefined(flags.config) }))
  )
).pipe(
  Command.withDescription(
    "Process dead letters again: an event goes to its projection, a message to its subscription alone, a message of the relay to Pulsar, a record of a bridge to its other side. Exits with 4 if some are refused again"
  ),
  Command.withExamples([
    {
      command: "millrace dlq retry --projection signals --since '1 day'",
      description: "After the error in a handler is fixed"
    },
    {
      command: "millrace dlq retry --rule orders --rules bridge.json",
      description: "After the missing topic is created"
    }
  ])
)

const discard = Command.make("discard", { data, config: ownConfig, ...bulk, json }, (flags) =>
  runToExitCode(
    Effect.flatMap(actions, (module) =>
      module.discard({ ...bulkOf(flags), config: Option.getOrUndefined(flags.config) })
    )
  )
).pipe(
  Command.withDescription(
    "Decide that dead letters will not be processed. They are kept, and list shows them with --status discarded only"
  )
)

/** `millrace dlq list|show|retry|discard`. */
export const dlq = Command.make("dlq").pipe(
  Command.withDescription(
    "List, show, retry and discard dead letters of projections, subscriptions, relays and bridges. The database keeps what was decided"
  ),
  Command.withSubcommands([list, show, retry, discard])
)
