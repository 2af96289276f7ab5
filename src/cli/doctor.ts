// Defines the command line of `millrace doctor`. What it does is in doctor-actions.ts, which is loaded when it runs.
import { Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { portOf } from "./http-port.ts"
import { config, data, json, port, runToExitCode } from "./flags.ts"

/** `millrace doctor`. */
export const doctor = Command.make("doctor", { data, config, port, json }, (flags) =>
  runToExitCode(
    Effect.gen(function* () {
      const module = yield* Effect.promise(() => import("./doctor-actions.ts"))
      const port = (yield* portOf(Option.getOrUndefined(flags.port))) ?? 7070
      return yield* module.doctor({ ...flags, port, config: Option.getOrUndefined(flags.config) })
    })
  )
).pipe(
  Command.withDescription(
    "Check everything that the application needs here, and print for each thing that is wrong the reason and what fixes it. Changes nothing. Exits with 3 if anything is wrong"
  )
)
