// Finds and loads the application: the default export of millrace.config.ts. It runs nothing of it.
import { existsSync } from "node:fs"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import { CommandFailed } from "./command-failure.ts"

/** An application of any projections. */
export type AnyApplication = Application.Any

const names = ["millrace.config.ts", "millrace.config.js", "millrace.config.mjs"]

/** Loads the application from a file, or from the working directory's `millrace.config.ts`. */
export const loadApplication = Effect.fnUntraced(function* (file: string | undefined) {
  const path = file === undefined ? names.map((name) => resolve(name)).find((name) => existsSync(name)) : resolve(file)
  if (path === undefined || !existsSync(path)) {
    return yield* new CommandFailed({
      message: file === undefined ? `there is no ${names[0]} in ${process.cwd()}` : `there is no ${path}`,
      try: "run this where your millrace.config.ts is, or name it with --config FILE"
    })
  }
  const module = yield* Effect.tryPromise({
    try: () => import(pathToFileURL(path).href) as Promise<{ readonly default?: AnyApplication }>,
    catch: (cause) =>
      new CommandFailed({
        message: `${path} does not load: ${cause instanceof Error ? cause.message : String(cause)}`,
        try: "mend the error it names"
      })
  })
  const application = module.default
  if (!Array.isArray(application?.projections)) {
    return yield* new CommandFailed({
      message: `${path} has no application as its default export`,
      try: "export default Application.make({ name, projections: [Projection.async(…)] })"
    })
  }
  return application
})
