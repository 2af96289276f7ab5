// `millrace erase SUBJECT` and `millrace export SUBJECT`: the personal data of one person, destroyed or printed.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, runToExitCode, toggle } from "./flags.ts"

const subject = Argument.String("subject").pipe(
  Argument.withDescription("Whose data it is, as the `subject` of aggregates names it")
)
/** `millrace erase`. */
export const erase = Command.make(
  "erase",
  {
    data,
    config,
    subject,
    reason: Flag.String("reason").pipe(
      Flag.withDescription("Why; it is stored in the event subject.erased"),
      Flag.withDefault("requested")
    ),
    readmit: toggle("readmit", "Store new personal data of an erased subject again; what was erased stays erased"),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./erase-actions.ts")),
        (module) => module.erase({ ...flags, config: Option.getOrUndefined(flags.config) })
      )
    )
).pipe(
  Command.withDescription(
    "Destroy the keys of a subject's personal data, in all events and copies of them. It cannot be undone"
  ),
  Command.withExamples([
    {
      command: 'millrace erase customer-17 --reason "request of 2026-11-02"',
      description: "Erase the data of a customer"
    }
  ])
)
/** `millrace export`. */
export const exportSubject = Command.make("export", { data, config, subject }, (flags) =>
  runToExitCode(
    Effect.flatMap(
      Effect.promise(() => import("./erase-actions.ts")),
      (module) => module.exportSubject({ ...flags, config: Option.getOrUndefined(flags.config) })
    )
  )
).pipe(
  Command.withDescription("Print all events about a subject, one JSON object a line"),
  Command.withExamples([
    { command: "millrace export customer-17 > customer-17.ndjson", description: "What is stored about a customer" }
  ])
)
