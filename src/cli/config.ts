// Finds and loads the application: the default export of millrace.config.ts.
import { existsSync } from "node:fs"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import { CommandFailed } from "./command-failure.ts"

/** An application with any projections. */
export type AnyApplication = Application.Any

const names = ["millrace.config.ts", "millrace.config.js", "millrace.config.mjs"]

/** Loads the application as `loadApplication` does, if there is one: a file that is named must exist. */
export const loadApplicationIfAny = (file: string | undefined) =>
  file === undefined && usualFile() === undefined ? Effect.undefined : loadApplication(file)

/** The file of the application in the working directory; undefined if it has none. */
export const usualFile = () => names.map((name) => resolve(name)).find((name) => existsSync(name))
/** Loads the application from a file; without a file, from `millrace.config.ts`, `.js` or `.mjs` in the working directory. */
export const loadApplication = Effect.fnUntraced(function* (file: string | undefined) {
  const path = file === undefined ? usualFile() : resolve(file)
  if (path === undefined || !existsSync(path)) {
    return yield* new CommandFailed({
      message: file === undefined ? `there is no ${names[0]} in ${process.cwd()}` : `the file ${path} does not exist`,
      try: "change to the directory of your millrace.config.ts, or name the file with --config FILE"
    })
  }
  const module = yield* Effect.tryPromise({
    try: () => import(pathToFileURL(path).href) as Promise<{ readonly default?: AnyApplication }>,
    catch: (cause) =>
      new CommandFailed({
        message: `${path} does not load: ${cause instanceof Error ? cause.message : String(cause)}`,
        try: "fix the error in that file, or in a file that it imports"
      })
  })
  const application = module.default
  if (!Array.isArray(application?.projections)) {
    return yield* new CommandFailed({
      message: `the default export of ${path} is not an application`,
      try: "export default Application.make({ name, projections: [Projection.async(…)] })"
    })
  }
  return application
})
