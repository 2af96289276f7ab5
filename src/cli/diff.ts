// `millrace diff NAME`: compares a build that a rebuild made with the live one.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, optionalText, runToExitCode, toggle } from "./flags.ts"

/** `millrace diff`. */
export const diff = Command.make(
  "diff",
  {
    data,
    config,
    name: Argument.String("name").pipe(Argument.withDescription("A projection")),
    with: Flag.optional(
      Flag.Int("with").pipe(
        Flag.withDescription("A build that follows the live one; default: the candidate, the newest")
      )
    ),
    exact: toggle("exact", "Count numbers that differ by rounding as changed"),
    samples: Flag.Int("samples").pipe(
      Flag.withDescription("How many rows to show of each table that differs, for each kind of difference"),
      Flag.withDefault(5)
    ),
    timeout: optionalText("timeout", "How long the candidate may take to reach the live build; default: 60s"),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./diff-actions.ts")),
        (module) =>
          module.diff({
            ...flags,
            config: Option.getOrUndefined(flags.config),
            with: Option.getOrUndefined(flags.with),
            timeout: Option.getOrElse(flags.timeout, () => "60s")
          })
      )
    )
).pipe(
  Command.withDescription(
    "Compare the candidate of a projection with its live build, row by row, while both run or neither. Exits with 0 only if they are equal, with 3 if they differ, and with 4 if the candidate was not where the live build is in time"
  ),
  Command.withExamples([
    { command: "millrace diff orders", description: "After millrace rebuild orders" },
    {
      command: "millrace diff orders --json --samples 20",
      description: "One JSON object, with more of the rows that differ"
    }
  ])
)
