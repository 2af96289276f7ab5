// What every log must do, whatever it is kept in: one suite, run for each adapter. It knows no adapter.
import { it as vitest } from "@effect/vitest"
import type * as Layer from "effect/Layer"
import type { LogCleaner } from "../../src/log/cleaner.ts"
import type { Log } from "../../src/log/log.ts"
import { logAppending } from "./log-appending.ts"
import { logCleaning } from "./log-cleaning.ts"
import { logGroups } from "./log-groups.ts"
import { logReading } from "./log-reading.ts"
import { logTopics } from "./log-topics.ts"

const live = { timeout: "60 seconds", excludeTestServices: true } as const

/** Runs the suite against an adapter that keeps its log, and its cleaner, in `layer`. */
export const logContract = <E>(name: string, layer: Layer.Layer<Log | LogCleaner, E>) =>
  vitest.layer(layer, live)(`Log (${name})`, (it) => {
    logTopics(it)
    logAppending(it)
    logReading(it)
    logCleaning(it)
    logGroups(it)
  })

/** The same for an adapter whose server cleans by itself. */
export const logContractUncleaned = <E>(name: string, layer: Layer.Layer<Log, E>) =>
  vitest.layer(layer, live)(`Log (${name})`, (it) => {
    logTopics(it)
    logAppending(it)
    logReading(it)
    logGroups(it)
  })
