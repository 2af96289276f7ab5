// `millrace pulsar plan|apply|check`: compares the tenants, namespaces and topics on Pulsar with what the application declares, and changes them.
import { Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { CommandFailed, exitCodes } from "./command-failure.ts"
import { loadApplication } from "./config.ts"
import { config, json, optionalText, runToExitCode } from "./flags.ts"
import { print } from "./print.ts"
import { aggregatesOf, type Application, topicsOf } from "../model/application.ts"
import { defaults, type PulsarOptions } from "../pulsar/client/options.ts"
import type { ResourcePlan } from "../pulsar/tenants.ts"
import { Tenancy } from "../model/tenancy.ts"
import { maskSecrets } from "../text/secrets.ts"
import { commaSeparated } from "../text/comma-separated.ts"

// Pulsar's code is loaded only if a command runs.
const load = Effect.promise(async () => {
  const [{ Admin }, tenants, { adminOptionsFrom }] = await Promise.all([
    import("../pulsar/client/admin.ts"),
    import("../pulsar/tenants.ts"),
    import("../pulsar/client/options.ts")
  ])
  return { tenants, Admin, adminOptionsFrom }
})

const signs = { create: "+", change: "~", refused: "!" } as const
const valueOf = (value: unknown) => (value === undefined ? "none" : JSON.stringify(value))
/** What differs, and how many resources do not. `verb` is put before "as declared". */
const textOf = (plans: ReadonlyArray<ResourcePlan>, verb: string): string => {
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
  return [...lines, `${same} of ${plans.length}${verb} as declared`].join("\n")
}

/** The topics of each tenant if the application declares none: all topics that relays publish to Pulsar. */
const publishedTopics = (application: Application.Any) => [
  ...topicsOf(application)
    .filter(({ topic: { to }, writtenBy }) => writtenBy.length > 0 && to?.includes("pulsar") !== false)
    .map(({ topic }) => Tenancy.topic(topic)),
  ...aggregatesOf(application).map((aggregate) => Tenancy.topic(aggregate))
]

/**
 * What the application declares, with the tenants that the command names in addition. An application that declares none has the tenant of this
 * process. The namespace of this process counts before the declared one, as for relays and subscriptions.
 */
const tenancyOf = (
  application: Application.Any,
  tenants: string | undefined,
  { namespace, tenant = defaults.tenant }: Pick<PulsarOptions, "tenant" | "namespace">
) =>
  Effect.try({
    try: () => {
      const names = commaSeparated(tenants ?? "")
      const { pulsar } = application
      const made = Tenancy.make({
        tenants: [...new Set(pulsar === undefined && names.length === 0 ? [tenant] : names)],
        topics: publishedTopics(application)
      })
      const isNew = (name: string) => !pulsar?.tenants.some((other) => other.name === name)
      const all = {
        ...made,
        ...pulsar,
        tenants: [...(pulsar?.tenants ?? []), ...made.tenants.filter(({ name }) => isNew(name))]
      }
      return { ...all, namespace: namespace ?? all.namespace }
    },
    catch: (cause) => new CommandFailed({ message: (cause as Error).message, exitCode: exitCodes.usage })
  })

const run = Effect.fnUntraced(function* (
  action: "plan" | "apply" | "check",
  options: { readonly config: string | undefined; readonly tenants: string | undefined; readonly json: boolean }
) {
  const application = yield* loadApplication(options.config)
  const { Admin, adminOptionsFrom, tenants } = yield* load
  const own = yield* Effect.try({
    try: () => adminOptionsFrom(process.env),
    catch: (cause) => new CommandFailed({ message: (cause as Error).message, exitCode: exitCodes.usage })
  })
  const tenancy = yield* tenancyOf(application, options.tenants, own)
  const client = new Admin(own)
  const plans = yield* action === "apply" ? tenants.apply(client, tenancy) : tenants.plan(client, tenancy)
  const text = options.json
    ? JSON.stringify({ pulsar: maskSecrets(client.url), resources: plans, differs: plans.some(tenants.differs) })
    : textOf(plans, action === "apply" ? " were" : "")
  yield* print(text)
  const refused = plans.filter(({ action }) => action === "refused")
  if (action === "apply" && refused.length > 0) {
    const first = refused[0]!
    return yield* new CommandFailed({
      message: `${refused.map(({ name }) => name).join(", ")}: refused, so nothing was changed: ${first.note}`
    })
  }
  return action === "check" && plans.some(tenants.differs) ? exitCodes.unhealthy : 0
})

const tenants = optionalText(
  "tenants",
  "Tenants in addition to those that the application declares, separated by commas; default, if it declares none: MILLRACE_PULSAR_TENANT, or public"
)
const subcommand = (action: "plan" | "apply" | "check", description: string) =>
  Command.make(action, { config, tenants, json }, (flags) =>
    runToExitCode(
      run(action, {
        json: flags.json,
        config: Option.getOrUndefined(flags.config),
        tenants: Option.getOrUndefined(flags.tenants)
      })
    )
  ).pipe(Command.withDescription(description))

/** `millrace pulsar plan|apply|check`. */
export const pulsar = Command.make("pulsar").pipe(
  Command.withDescription(
    "Compare the tenants, namespaces and topics on Pulsar with what the application declares, and create or change them. Needs MILLRACE_PULSAR_ADMIN_URL"
  ),
  Command.withSubcommands([
    subcommand("plan", "Print what would be created or changed, and what is refused and why"),
    subcommand("apply", "Print the plan and carry it out; change nothing if a part of it is refused"),
    subcommand("check", "Print the plan; exit with 3 if anything differs from the declaration")
  ]),
  Command.withExamples([
    {
      command: "millrace pulsar apply",
      description: "Create the tenants of millrace.config.ts before the relay starts"
    }
  ])
)
