// Suites and tests that need services or other parts: they run where the parts are there, and are skipped or fail where they are not.
import { it as effectIt, type Vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { beforeAll, describe, it, type TestContext } from "vitest"
import type { Name } from "../../stack/service.ts"
import { isUnfetched, jarsProblem, lacking, shared } from "../../stack/testing.ts"
import { expected, type MachinePart, type Missing, missingOf, type Part, services } from "./parts.ts"
import { nativeProblem } from "./pulsar-client.ts"

const startMs = 180_000

/** As vitest's `describe`. */
export type Suite = (title: string, body: () => void) => void

const skipped = (title: string, { reason }: Missing) => `${title} (skipped: ${reason})`
const fail = ({ part, reason }: Missing) => {
  throw new Error(`MILLRACE_EXPECT lists ${part}, but ${reason}`)
}

// vitest does not count the tests of a suite that is skipped within a skipped one
let isSkipping = false
const skipping = (body: () => void) => () => {
  isSkipping = true
  try {
    body()
  } finally {
    isSkipping = false
  }
}

/** A suite that is skipped, or fails if MILLRACE_EXPECT lists the missing part. Without a missing part it is `describe`. */
const suiteOf = (missing: Missing | undefined): Suite => {
  if (missing === undefined || isSkipping) return describe
  if (!expected.has(missing.part)) return (title, body) => void describe.skip(skipped(title, missing), skipping(body))
  return (title) => void describe(title, () => void it(`has ${missing.part}`, () => fail(missing)))
}

/** A first `npm test` does not wait for Pulsar's 235 MB of jars; it fetches Kafka's. */
const waitProblem = async (name: Name, own: boolean): Promise<string | undefined> =>
  name === "pulsar" && !expected.has(name) && (await isUnfetched(name, own))
    ? "the jars of Pulsar are not fetched yet. try: npm run stack -- fetch --services pulsar"
    : undefined
const fetchProblem = async (name: Name, own: boolean): Promise<string | undefined> =>
  (await isUnfetched(name, own)) ? jarsProblem(name) : undefined

/** The first of these parts that this machine does not have. With `own`, services of the environment do not count. */
export const problemOf = async (parts: ReadonlyArray<Part>, own: boolean): Promise<Missing | undefined> => {
  const missing = await missingOf(parts)
  if (missing !== undefined) return missing
  for (const problem of [lacking, waitProblem, fetchProblem])
    for (const part of services(parts)) {
      const reason = await problem(part, own)
      if (reason !== undefined) return { part, reason }
    }
  return undefined
}

/** A suite that uses services of the environment, or shared ones (`shared`). Awaited at the top of a test file. */
export const needing = async (...parts: ReadonlyArray<Part>): Promise<Suite> => {
  const missing = await problemOf(parts, false)
  if (missing !== undefined) return suiteOf(missing)
  return (title, body) =>
    void describe(title, () => {
      // the first file that asks waits here for the start, so that no test's time includes it
      beforeAll(() => Effect.runPromise(shared(...services(parts))), startMs)
      body()
    })
}

/** A suite that has services of its own, which it stops, kills or configures (`kafka`, `postgres`, `pulsar`). */
export const owning = async (...parts: ReadonlyArray<Part>): Promise<Suite> => suiteOf(await problemOf(parts, true))

/** A transport to Pulsar: the native client, or WebSocket, which every machine has. */
export type TransportName = "native" | "websocket"
export const transports: ReadonlyArray<TransportName> = ["native", "websocket"]

const missingFor = (transport: TransportName): Missing | undefined => {
  const reason = transport === "native" ? nativeProblem() : undefined
  return reason === undefined ? undefined : { part: "native", reason }
}

/** A suite for each transport, named after it. */
export const overTransports = (body: (transport: TransportName) => void): void =>
  transports.forEach((transport) => suiteOf(missingFor(transport))(transport, () => body(transport)))

/** The same, for suites whose tests mostly wait: they run at the same time. */
export const overTransportsConcurrently = (body: (transport: TransportName) => void): void =>
  overTransports((transport) => void describe.concurrent("at the same time", () => body(transport)))

/** A test that uses this transport, as `it.live` or another tester would declare it. */
export const testOver = <R = Scope.Scope>(
  transport: TransportName,
  tester: Vitest.Tester<R> = effectIt.live as Vitest.Tester<R>
): Vitest.Test<R> => {
  const missing = missingFor(transport)
  if (missing === undefined) return tester
  if (expected.has("native")) return (title) => void it(title, () => fail(missing))
  return (title, body, timeout) => tester.skip(skipped(title, missing), body, timeout)
}
/** A test for each transport, whose name stands for `%s` in the title. */
export const testOverTransports = <A, E>(
  title: string,
  body: (transport: TransportName) => Effect.Effect<A, E, Scope.Scope>,
  timeout?: number
): void =>
  transports.forEach((transport) => testOver(transport)(title.replace("%s", transport), () => body(transport), timeout))

/** Skips the rest of a running test that finds a part missing; fails it if MILLRACE_EXPECT lists the part. */
export const skipWithout = (part: MachinePart, reason: string, skip: TestContext["skip"]): never =>
  expected.has(part) ? fail({ part, reason }) : skip(reason)
