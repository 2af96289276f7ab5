// `millrace retire NAME [BUILD]`: ends a build that is not live, or a projection that the configuration no longer has.
import { Argument, Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, runToExitCode, toggle } from "./flags.ts"

/** `millrace retire`. */
export const retire = Command.make(
  "retire",
  {
    data,
    config,
    name: Argument.String("name").pipe(Argument.withDescription("A projection")),
    version: Argument.optional(
      Argument.Int("version").pipe(
        Argument.withDescription("A build of it; default: all whose version the configuration does not have")
      )
    ),
    drop: toggle("drop", "Drop its tables and the views over them; without this they are kept"),
    dryRun: toggle("dry-run", "Print what would be done, and change nothing"),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./retire-actions.ts")),
        (module) =>
          module.retire({
            ...flags,
            config: Option.getOrUndefined(flags.config),
            version: Option.getOrUndefined(flags.version)
          })
      )
    )
).pipe(
  Command.withDescription(
    "End a build that is not live, or a projection that the configuration no longer has. It is final while another build is live"
  ),
  Command.withExamples([
    { command: "millrace retire orders 1", description: "After millrace promote orders has put build 2 in its place" },
    { command: "millrace retire orders --drop", description: "After the projection was removed from the configuration" }
  ])
)
