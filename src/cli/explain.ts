// `millrace explain TABLE KEY`: which events made a row of a read model, and what each did to it.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, optionalText, runToExitCode } from "./flags.ts"

/** `millrace explain`. */
export const explain = Command.make(
  "explain",
  {
    data,
    config,
    table: Argument.String("table").pipe(
      Argument.withDescription("A table or a window of the application; with NAME_vN. before it, of that build")
    ),
    key: Argument.String("key").pipe(
      Argument.withDescription(
        "The row's key: its value if it has one column, else column=value for each column, or a JSON object"
      ),
      Argument.variadic({ min: 1 })
    ),
    from: optionalText(
      "from",
      'Replay only what the log stored since then: a duration before now such as "2 hours", or a date; default: everything'
    ),
    until: optionalText("until", "Replay only what the log stored until then; default: all that was processed"),
    limit: Flag.Int("limit").pipe(
      Flag.withDescription("At most this many events, the last ones; default: 1000"),
      Flag.withDefault(1_000)
    ),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./explain-actions.ts")),
        (module) =>
          module.explain({
            ...flags,
            config: Option.getOrUndefined(flags.config),
            from: Option.getOrUndefined(flags.from),
            until: Option.getOrUndefined(flags.until)
          })
      )
    )
).pipe(
  Command.withDescription(
    "Print which events of the log made a row, in order, and what each did to it. Replays the projection in memory: its handlers run, and nothing is stored or published. Exits with 3 if the replay gives another row than the stored one"
  ),
  Command.withExamples([
    { command: "millrace explain orders o-17", description: "Why this order is as it is" },
    {
      command: "millrace explain orders_per_hour customer=ann window_size=1h window_start=2026-01-31T12:00Z",
      description: "What a window counted"
    }
  ])
)
