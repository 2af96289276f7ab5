// Defines the command line of `millrace keys`. What its commands do is in keys-actions.ts, which is loaded when one of them runs.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { data, json, optionalText, ownConfig, runToExitCode, toggle } from "./flags.ts"

const shared = { data, config: ownConfig, json }
const actions = Effect.promise(() => import("./keys-actions.ts"))

const create = Command.make(
  "create",
  {
    ...shared,
    name: Argument.String("name").pipe(Argument.withDescription("Whose key it is, for lists and logs")),
    scopes: Flag.String("scopes").pipe(
      Flag.withDescription(
        "What it allows, separated by commas: ingest (send events and commands), read (topics, views, aggregates), operate (the system itself)"
      )
    ),
    tenant: optionalText("tenant", "The only tenant that it writes and reads; default: all tenants"),
    expires: optionalText("expires", 'For how long it is valid, such as "90 days"; default: until it is revoked')
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(actions, (module) =>
        module.create({
          ...flags,
          config: Option.getOrUndefined(flags.config),
          tenant: Option.getOrUndefined(flags.tenant),
          expires: Option.getOrUndefined(flags.expires)
        })
      )
    )
).pipe(
  Command.withDescription("Create a key and print it: it is shown this once, and stored as a digest"),
  Command.withExamples([
    { command: "millrace keys create loader --scopes ingest", description: "A program that sends events" },
    {
      command: 'millrace keys create acme-app --scopes ingest,read --tenant acme --expires "90 days"',
      description: "A customer's program, which sees its own data alone"
    }
  ])
)
const list = Command.make("list", { ...shared, all: toggle("all", "Also those that were revoked") }, (flags) =>
  runToExitCode(
    Effect.flatMap(actions, (module) => module.list({ ...flags, config: Option.getOrUndefined(flags.config) }))
  )
).pipe(Command.withDescription("List keys: what each allows, and when it was used last"))
const revoke = Command.make(
  "revoke",
  {
    ...shared,
    id: Argument.String("id").pipe(Argument.withDescription("The id, as list prints it")),
    dryRun: toggle("dry-run", "Print which key would be revoked, and change nothing")
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(actions, (module) => module.revoke({ ...flags, config: Option.getOrUndefined(flags.config) }))
    )
).pipe(Command.withDescription("Revoke a key for good: servers refuse it within 5 seconds"))

/** `millrace keys create|list|revoke`. */
export const keys = Command.make("keys").pipe(
  Command.withDescription("API keys of the HTTP server"),
  Command.withSubcommands([create, list, revoke])
)
