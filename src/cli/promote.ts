// `millrace promote NAME`: puts a build that follows the live one in its place, or goes back to the one before.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, optionalText, runToExitCode, toggle } from "./flags.ts"

/** `millrace promote`. */
export const promote = Command.make(
  "promote",
  {
    data,
    config,
    name: Argument.String("name").pipe(Argument.withDescription("A projection")),
    build: Flag.optional(
      Flag.Int("build").pipe(
        Flag.withDescription("A build that follows the live one; default: the candidate, the newest")
      )
    ),
    rollback: toggle("rollback", "Go back to the build that the last promotion replaced"),
    dryRun: toggle("dry-run", "Do everything but the switch, and print how long the pause was"),
    publish: optionalText(
      "publish",
      "corrections: publish the rows of windows that the new build computes otherwise; repeat it to go on after a crash"
    ),
    timeout: optionalText("timeout", "How long it may take; then nothing is changed; default: 5s"),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./promote-actions.ts")),
        (module) =>
          module.promote({
            ...flags,
            config: Option.getOrUndefined(flags.config),
            build: Option.getOrUndefined(flags.build),
            publish: Option.getOrUndefined(flags.publish),
            timeout: Option.getOrElse(flags.timeout, () => "5s")
          })
      )
    )
).pipe(
  Command.withDescription(
    "Put the newest build of a projection in the place of the live one, while both run or neither: readers see the new one and it publishes where the old one stopped. Exits with 3 if that is not possible as things are, and with 4 if it was not in time; then nothing was changed"
  ),
  Command.withExamples([
    { command: "millrace promote orders", description: "After millrace rebuild orders and millrace diff orders" },
    { command: "millrace promote orders --rollback", description: "Go back to the build before" }
  ])
)
