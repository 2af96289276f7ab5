// Defines the command line of `millrace timers`. What its commands do is in timers-actions.ts, which is loaded when one of them runs.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { data, json, optionalText, ownConfig, runToExitCode, toggle } from "./flags.ts"

const selection = {
  data,
  config: ownConfig,
  ids: Argument.String("id").pipe(Argument.withDescription("Ids, as list prints them"), Argument.variadic()),
  projection: optionalText("projection", "Only those that this policy or projection has set or sent"),
  aggregate: optionalText("aggregate", "Only commands for this aggregate"),
  json
}
const all = toggle("all", "All that fit; needed if neither ids nor filters are given")
const dryRun = toggle("dry-run", "Print which would be taken, and change nothing")
const plain = <F extends { readonly [K in "config" | "projection" | "aggregate"]: Option.Option<string> }>(
  flags: F
) => ({
  ...flags,
  config: Option.getOrUndefined(flags.config),
  projection: Option.getOrUndefined(flags.projection),
  aggregate: Option.getOrUndefined(flags.aggregate)
})
const actions = Effect.promise(() => import("./timers-actions.ts"))

const list = Command.make(
  "list",
  {
    ...selection,
    failing: toggle("failing", "Only those that failed and are tried again"),
    limit: Flag.Int("limit").pipe(
      Flag.withDescription("At most this many, the next one first; default: 50"),
      Flag.withDefault(50)
    )
  },
  (flags) => runToExitCode(Effect.flatMap(actions, (module) => module.list(plain(flags))))
).pipe(
  Command.withDescription("List timers and sent commands that wait, are due, or failed and are tried again"),
  Command.withExamples([{ command: "millrace timers list --failing", description: "What fails, with the reasons" }])
)
const retry = Command.make("retry", { ...selection, all, dryRun }, (flags) =>
  runToExitCode(Effect.flatMap(actions, (module) => module.retry(plain(flags))))
).pipe(
  Command.withDescription("Try timers and commands that failed now, and not only when their pause is over"),
  Command.withExamples([{ command: "millrace timers retry --all", description: "After the cause was removed" }])
)
const discard = Command.make("discard", { ...selection, all, dryRun }, (flags) =>
  runToExitCode(Effect.flatMap(actions, (module) => module.discard(plain(flags))))
).pipe(
  Command.withDescription("Delete timers and commands that wait or fail. They are never executed. It cannot be undone"),
  Command.withExamples([
    { command: "millrace timers discard 5d2c1a52-…", description: "Give one command up" },
    { command: "millrace timers discard --projection escalation", description: "All that a policy has set" }
  ])
)

/** `millrace timers list|retry|discard`. */
export const timers = Command.make("timers").pipe(
  Command.withDescription("Show and decide about timers and commands of policies that wait or fail"),
  Command.withSubcommands([list, retry, discard])
)
