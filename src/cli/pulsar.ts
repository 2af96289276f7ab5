// `millrace pulsar plan|apply|check`: holds tenants, namespaces and topics on Pulsar to what the application declares.
import { Command, type Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { loadApplication } from "./config.ts"
import { CommandFailed, exitCodes } from "./failure.ts"
import type { ResourcePlan } from "../pulsar/tenants.ts"

/** What every command shares: its flags, and how it ends. */
export interface Shared {
  readonly config: Flag.Flag<Option.Option<string>>
  readonly json: Flag.Flag<boolean>
  readonly ending: (run: Effect.Effect<number, unknown, Scope.Scope>) => Effect.Effect<number>
}

const open = Effect.promise(async () => {
  const [{ Admin }, tenants, { adminOptionsFrom }] = await Promise.all([
    import("../pulsar/admin.ts"),
    import("../pulsar/tenants.ts"),
    import("../pulsar/options.ts")
  ])
  return { tenants, admin: () => new Admin(adminOptionsFrom(process.env)) }
})

const signs = { create: "+", change: "~", nothing: "=", refused: "!" } as const
const valueOf = (value: unknown) => (value === undefined ? "none" : JSON.stringify(value))
const textOf = (plans: ReadonlyArray<ResourcePlan>): string =>
  plans
    .flatMap(({ action, kind, name, note, settings }) => [
      `${signs[action]} ${kind} ${name}${action === "nothing" ? "" : `: ${action}`}`,
      ...settings.map((setting) => `    ${setting.name}: ${valueOf(setting.from)} -> ${valueOf(setting.to)}`),
      ...(note === undefined ? [] : [`    ${note}`])
    ])
    .join("\n")

const run = Effect.fnUntraced(function* (
  doing: "plan" | "apply" | "check",
  options: { readonly config: string | undefined; readonly json: boolean }
) {
  const { pulsar } = yield* loadApplication(options.config)
  if (pulsar === undefined) {
    return yield* new CommandFailed({
      message: "the application declares no tenants on Pulsar",
      try: 'Application.make({ …, pulsar: Tenancy.make({ tenants: ["acme"], topics: [Tenancy.topic(alerts)] }) })'
    })
  }
  const { admin, tenants } = yield* open
  const client = yield* Effect.try({
    try: admin,
    catch: (cause) => new CommandFailed({ message: (cause as Error).message, exitCode: exitCodes.usage })
  })
  const plans = yield* doing === "apply" ? tenants.apply(client, pulsar) : tenants.plan(client, pulsar)
  const text = options.json
    ? JSON.stringify({ pulsar: client.url, resources: plans, differs: plans.some(tenants.differs) })
    : textOf(plans)
  yield* Effect.sync(() => process.stdout.write(`${text}\n`))
  const refused = plans.filter(({ action }) => action === "refused")
  if (doing === "apply" && refused.length > 0) {
    const first = refused[0]!
    return yield* new CommandFailed({
      message: `${refused.map(({ name }) => name).join(", ")}: refused, and nothing was changed: ${first.note}`
    })
  }
  return doing === "check" && plans.some(tenants.differs) ? exitCodes.unhealthy : 0
})

/** `millrace pulsar plan|apply|check`. */
export const pulsarOf = ({ config, ending, json }: Shared) => {
  const one = (doing: "plan" | "apply" | "check", description: string) =>
    Command.make(doing, { config, json }, (flags) =>
      ending(run(doing, { ...flags, config: Option.getOrUndefined(flags.config) }))
    ).pipe(Command.withDescription(description))
  return Command.make("pulsar").pipe(
    Command.withDescription(
      "Tenants, namespaces and topics on Pulsar (MILLRACE_PULSAR_ADMIN_URL): what is to be done, and doing it"
    ),
    Command.withSubcommands([
      one("plan", "Show what is to be done: create, change, nothing, or why not"),
      one("apply", "Show it and do it; nothing where one is refused"),
      one("check", "Show it; exit 3 where anything differs from what is declared")
    ]),
    Command.withExamples([
      {
        command: "millrace pulsar apply",
        description: "Make the tenants of millrace.config.ts before the relay starts"
      }
    ])
  )
}
