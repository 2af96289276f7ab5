// `millrace init DIR`: creates a new application. What it does is in create.ts, which is loaded when it runs.
import { readFileSync } from "node:fs"
import { Argument, Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { CommandFailed, exitCodes } from "./command-failure.ts"
import { optionalText, runToExitCode, toggle } from "./flags.ts"

const versionOfMillrace = (): string =>
  (JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { readonly version: string })
    .version

/** `millrace init`. */
export const init = Command.make(
  "init",
  {
    directory: Argument.String("dir").pipe(
      Argument.withDescription("The folder to create; . is the working directory")
    ),
    deno: toggle("deno", "For Deno instead of Node"),
    name: optionalText("name", "The name of the application; default: the name of the folder"),
    noInstall: toggle("no-install", "Do not install the packages that the application depends on")
  },
  ({ deno, directory, name, noInstall }) =>
    runToExitCode(
      Effect.gen(function* () {
        const { create } = yield* Effect.promise(() => import("./create.ts"))
        const { CannotCreate } = yield* Effect.promise(() => import("./scaffold.ts"))
        const wanted = { directory, name: Option.getOrUndefined(name), deno, install: !noInstall }
        const print = (text: string) => void process.stdout.write(`${text}\n`)
        yield* Effect.tryPromise({
          try: () => create({ ...wanted, version: versionOfMillrace() }, print),
          catch: (error) =>
            error instanceof CannotCreate
              ? new CommandFailed({ message: error.message, try: error.try, exitCode: exitCodes.usage })
              : new CommandFailed({ message: `cannot create ${directory}: ${(error as Error).message}` })
        })
        return 0
      })
    )
).pipe(
  Command.withDescription("Create an application that runs and passes its tests, with sample events, and install it"),
  Command.withExamples([
    { command: "millrace init my-app", description: "Create it in the folder my-app" },
    { command: "millrace init my-app --deno", description: "The same for Deno" }
  ])
)
