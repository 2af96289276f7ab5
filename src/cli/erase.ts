// `millrace erase SUBJECT` and `millrace export SUBJECT`: the personal data of one person, destroyed or printed.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, optionalText, runToExitCode, toggle } from "./flags.ts"

/** The flags with undefined for texts that were left out. */
const plainFlags = <F extends { readonly config: Option.Option<string>; readonly tenant: Option.Option<string> }>(
  flags: F
) => ({ ...flags, config: Option.getOrUndefined(flags.config), tenant: Option.getOrUndefined(flags.tenant) })
const subject = Argument.String("subject").pipe(
  Argument.withDescription("Whose data it is, as the `subject` of aggregates names it")
)
const tenancy = {
  tenant: optionalText("tenant", "Only if the events about the subject are of this tenant alone"),
  allTenants: toggle("all-tenants", "Also if the events about the subject are of several tenants, for all of them")
}
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
    dryRun: toggle("dry-run", "Print what would be erased, and change nothing"),
    readmit: toggle("readmit", "Store new personal data of an erased subject again; what was erased stays erased"),
    ...tenancy,
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./erase-actions.ts")),
        (module) => module.erase(plainFlags(flags))
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
const exportTenancy = {
  tenant: optionalText("tenant", "Only events of this tenant"),
  allTenants: toggle("all-tenants", "Also if the events about the subject are of several tenants, those of all of them")
}
/** `millrace export`. */
export const exportSubject = Command.make("export", { data, config, subject, ...exportTenancy }, (flags) =>
  runToExitCode(
    Effect.flatMap(
      Effect.promise(() => import("./erase-actions.ts")),
      (module) => module.exportSubject(plainFlags(flags))
    )
  )
).pipe(
  Command.withDescription("Print all events about a subject, one JSON object a line"),
  Command.withExamples([
    { command: "millrace export customer-17 > customer-17.ndjson", description: "What is stored about a customer" }
  ])
)
