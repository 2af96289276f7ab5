// The contract of the log: one suite, which every adapter of the port passes.
import { it as vitest } from "@effect/vitest"
import type * as Layer from "effect/Layer"
import type { LogCleaner } from "../../src/log/cleaner.ts"
import type { Log } from "../../src/log/log.ts"
import { logAppending } from "./log-appending.ts"
import { logCleaning } from "./log-cleaning.ts"
import { logGroups } from "./log-groups.ts"
import { logReading } from "./log-reading.ts"
import { logTokens } from "./log-tokens.ts"
import { logTopics } from "./log-topics.ts"

const live = { timeout: "60 seconds", excludeTestServices: true } as const

/** Runs the suite for an adapter whose log and cleaner are in `layer`. */
export const logContract = <E>(name: string, layer: Layer.Layer<Log | LogCleaner, E>) =>
  vitest.layer(layer, live)(`Log (${name})`, (it) => {
    logTopics(it)
    logAppending(it)
    logReading(it)
    logTokens(it)
    logCleaning(it)
    logGroups(it)
  })

/** Runs the suite without cleaning, for an adapter whose server cleans by itself. */
export const logContractUncleaned = <E>(name: string, layer: Layer.Layer<Log, E>) =>
  vitest.layer(layer, live)(`Log (${name})`, (it) => {
    logTopics(it)
    logAppending(it)
    logReading(it)
    logTokens(it)
    logGroups(it)
  })
