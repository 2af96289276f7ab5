// `millrace pulsar plan|apply|check`: holds tenants, namespaces and topics on Pulsar to what the application declares.
import { Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { loadApplication } from "./config.ts"
import { CommandFailed, exitCodes } from "./command-failure.ts"
import { type Application, topicsOf } from "../model/application.ts"
import type { ResourcePlan } from "../pulsar/tenants.ts"
import { Tenancy } from "../model/tenancy.ts"

/** What every command shares: its flags, and how it ends. */
export interface Shared {
  readonly config: Flag.Flag<Option.Option<string>>
  readonly json: Flag.Flag<boolean>
  readonly ending: (run: Effect.Effect<number, unknown, Scope.Scope>) => Effect.Effect<number>
}

const open = Effect.promise(async () => {
  const [{ Admin }, tenants, { adminOptionsFrom }] = await Promise.all([
    import("../pulsar/client/admin.ts"),
    import("../pulsar/tenants.ts"),
    import("../pulsar/client/options.ts")
  ])
  return { tenants, admin: () => new Admin(adminOptionsFrom(process.env)) }
})

const signs = { create: "+", change: "~", refused: "!" } as const
const valueOf = (value: unknown) => (value === undefined ? "none" : JSON.stringify(value))
/** What differs, and how much does not. `are`: or were, where it is made so now. */
const textOf = (plans: ReadonlyArray<ResourcePlan>, are: string): string => {
  const lines = plans.flatMap(({ action, kind, name, note, settings }) =>
    action === "nothing"
      ? []
      : [
          `${signs[action]} ${kind} ${name}: ${action}`,
          ...settings.map((setting) => `    ${setting.name}: ${valueOf(setting.from)} -> ${valueOf(setting.to)}`),
          ...(note === undefined ? [] : [`    ${note}`])
        ]
  )
  const same = plans.filter(({ action }) => action === "nothing").length
  return [...lines, `${same} of ${plans.length}${are} as declared`].join("\n")
}

/** The topics that every tenant has where the application does not say: all that projections write and that go to Pulsar. */
const derived = (application: Application.Any) =>
  topicsOf(application)
    .filter(({ topic: { to }, writtenBy }) => writtenBy.length > 0 && to?.includes("pulsar") !== false)
    .map(({ topic }) => Tenancy.topic(topic))

/** What the application declares, and the tenants that the command names beside. */
const tenancyOf = (application: Application.Any, tenants: string | undefined) => {
  const named = (tenants ?? "").split(",").flatMap((name) => (name.trim() === "" ? [] : [name.trim()]))
  const { pulsar } = application
  if (pulsar === undefined && named.length === 0) {
    return Effect.fail(
      new CommandFailed({
        message: "the application declares no tenants on Pulsar",
        try: '--tenants acme,globex, or Application.make({ …, pulsar: Tenancy.make({ tenants: ["acme"], topics: [Tenancy.topic(alerts)] }) })'
      })
    )
  }
  return Effect.try({
    try: () => {
      const made = Tenancy.make({ tenants: [...new Set(named)], topics: derived(application) })
      if (pulsar === undefined) return made
      const isNew = (name: string) => !pulsar.tenants.some((tenant) => tenant.name === name)
      return { ...pulsar, tenants: [...pulsar.tenants, ...made.tenants.filter(({ name }) => isNew(name))] }
    },
    catch: (cause) => new CommandFailed({ message: (cause as Error).message, exitCode: exitCodes.usage })
  })
}

const run = Effect.fnUntraced(function* (
  doing: "plan" | "apply" | "check",
  options: { readonly config: string | undefined; readonly tenants: string | undefined; readonly json: boolean }
) {
  const tenancy = yield* tenancyOf(yield* loadApplication(options.config), options.tenants)
  const { admin, tenants } = yield* open
  const client = yield* Effect.try({
    try: admin,
    catch: (cause) => new CommandFailed({ message: (cause as Error).message, exitCode: exitCodes.usage })
  })
  const plans = yield* doing === "apply" ? tenants.apply(client, tenancy) : tenants.plan(client, tenancy)
  const text = options.json
    ? JSON.stringify({ pulsar: client.url, resources: plans, differs: plans.some(tenants.differs) })
    : textOf(plans, doing === "apply" ? " were" : "")
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

const tenantsFlag = Flag.optional(
  Flag.String("tenants").pipe(Flag.withDescription("Tenants beside those that the application declares, with commas"))
)

/** `millrace pulsar plan|apply|check`. */
export const pulsarOf = ({ config, ending, json }: Shared) => {
  const one = (doing: "plan" | "apply" | "check", description: string) =>
    Command.make(doing, { config, tenants: tenantsFlag, json }, ({ config, json, tenants }) =>
      ending(run(doing, { json, config: Option.getOrUndefined(config), tenants: Option.getOrUndefined(tenants) }))
    ).pipe(Command.withDescription(description))
  return Command.make("pulsar").pipe(
    Command.withDescription(
      "Tenants, namespaces and topics on Pulsar (MILLRACE_PULSAR_ADMIN_URL): what is to be done, and doing it"
    ),
    Command.withSubcommands([
      one("plan", "Show what is to be done: create, change, or why not"),
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
