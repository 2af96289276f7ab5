// The `dlq` commands as the command line has them. What they do is in letters.ts, which is loaded when one runs.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"

/** What every command shares: its flags, and how it ends. */
export interface Shared {
  readonly data: Flag.Flag<string>
  readonly config: Flag.Flag<Option.Option<string>>
  readonly json: Flag.Flag<boolean>
  readonly ending: (run: Effect.Effect<number, unknown, Scope.Scope>) => Effect.Effect<number>
}

const statuses = ["parked", "skipped", "retrying", "retried", "discarded"] as const
const text = (name: string, description: string) =>
  Flag.optional(Flag.String(name).pipe(Flag.withDescription(description)))
const filters = {
  kind: text("kind", "Of these, with commas: projection, subscription, relay, bridge; default: all"),
  subscription: text("subscription", "Of messages that this subscription gave up"),
  projection: text("projection", "Of this projection"),
  rule: text("rule", "Of records that a bridge could not mirror by this rule"),
  topic: text("topic", "Of records of this topic"),
  key: text("key", "Of records with this key"),
  error: text("error", "With this error, as `list` names it"),
  since: text("since", 'Failed since: "2 hours", or a date'),
  rules: text("rules", "The bridge's rules, as millrace bridge takes them; default: the same files")
}
const chosen = {
  ids: Argument.String("id").pipe(Argument.withDescription("Ids, as `list` prints them"), Argument.variadic()),
  ...filters,
  all: Flag.Boolean("all").pipe(Flag.withDescription("Without ids and filters: all"), Flag.withDefault(false)),
  limit: Flag.Int("limit").pipe(
    Flag.withDescription("At most so many of each kind, the oldest first; default: 1000"),
    Flag.withDefault(1_000)
  ),
  dryRun: Flag.Boolean("dry-run").pipe(Flag.withDescription("Show which, and do nothing"), Flag.withDefault(false))
}
const plain = <F extends { readonly [K in keyof typeof filters]: Option.Option<string> }>(flags: F) => ({
  ...flags,
  kind: Option.getOrUndefined(flags.kind),
  subscription: Option.getOrUndefined(flags.subscription),
  rule: Option.getOrUndefined(flags.rule),
  rules: Option.getOrUndefined(flags.rules),
  projection: Option.getOrUndefined(flags.projection),
  topic: Option.getOrUndefined(flags.topic),
  key: Option.getOrUndefined(flags.key),
  error: Option.getOrUndefined(flags.error),
  since: Option.getOrUndefined(flags.since)
})
const letters = Effect.promise(() => import("./dlq-actions.ts"))

/** `millrace dlq list|show|retry|discard`. */
export const dlqOf = ({ config, data, ending, json }: Shared) => {
  const list = Command.make(
    "list",
    {
      data,
      ...filters,
      status: Flag.String("status").pipe(
        Flag.withDescription(`Of these, with commas: ${statuses.join(", ")}; default: parked,retrying`),
        Flag.withDefault("parked,retrying")
      ),
      limit: Flag.Int("limit").pipe(
        Flag.withDescription("At most so many, the newest first; default: 50"),
        Flag.withDefault(50)
      ),
      json
    },
    (flags) => ending(Effect.flatMap(letters, (module) => module.list({ ...plain(flags), config: undefined, ids: [] })))
  ).pipe(Command.withDescription("Events, messages and records that could not be handled, sent or mirrored, and why"))
  const show = Command.make(
    "show",
    {
      data,
      id: Argument.String("id").pipe(Argument.withDescription("An id, as `list` prints it")),
      rules: filters.rules,
      json
    },
    (flags) =>
      ending(Effect.flatMap(letters, (module) => module.show({ ...flags, rules: Option.getOrUndefined(flags.rules) })))
  ).pipe(Command.withDescription("Everything that is known of one: payload, headers, error, place, attempts, trace id"))
  const retry = Command.make("retry", { data, config, ...chosen, json }, (flags) =>
    ending(
      Effect.flatMap(letters, (module) =>
        module.retry({ ...plain(flags), config: Option.getOrUndefined(flags.config) })
      )
    )
  ).pipe(
    Command.withDescription(
      "Bring them again: events to their projection, messages to their subscription alone, parked ones to Pulsar, records of a bridge across; exit 4 where some are refused still"
    ),
    Command.withExamples([
      { command: "millrace dlq retry --projection signals --since '1 day'", description: "After a handler was mended" },
      { command: "millrace dlq retry --rule orders --rules bridge.json", description: "After the topic was made" }
    ])
  )
  const discard = Command.make("discard", { data, ...chosen, json }, (flags) =>
    ending(Effect.flatMap(letters, (module) => module.discard({ ...plain(flags), config: undefined })))
  ).pipe(Command.withDescription("Keep them, and let nobody wait for them any more"))
  return Command.make("dlq").pipe(
    Command.withDescription(
      "Dead letters of projections, subscriptions, relays and bridges: list, show, retry and discard them. What was decided is kept in the database"
    ),
    Command.withSubcommands([list, show, retry, discard])
  )
}
