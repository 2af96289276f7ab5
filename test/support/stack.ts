// Suites that need real services: run where they can be had, else skipped with the reason, which under CI is a failure.
import * as Effect from "effect/Effect"
import { beforeAll, describe, it } from "vitest"
import { cached } from "../../stack/jars.ts"
import { lacking, shared } from "../../stack/testing.ts"
import type { Name } from "../../stack/service.ts"

const startMs = 180_000

/** As vitest's `describe`. */
export type Suite = (title: string, body: () => void) => void

/** Pulsar's 317 jars take a minute or more, once: a first `npm test` does not wait for them. CI fetches them before. */
const unfetched = (names: ReadonlyArray<Name>): string | undefined =>
  names.includes("pulsar") && cached("pulsar") === undefined && process.env["MILLRACE_PULSAR_URL"] === undefined
    ? "Pulsar's jars are not there yet; try: npm run stack -- fetch --services pulsar"
    : undefined

const suite = async (names: ReadonlyArray<Name>, own: boolean): Promise<Suite> => {
  const reason =
    (process.env["CI"] ?? "") === "" ? (unfetched(names) ?? (await lacking(names, own))) : await lacking(names, own)
  if (reason === undefined)
    return (title, body) =>
      void describe(title, () => {
        // the file that asks first waits for the start, and no test of it is timed with that
        if (!own) beforeAll(() => Effect.runPromise(shared(...names)), startMs)
        body()
      })
  if ((process.env["CI"] ?? "") === "")
    return (title, body) => void describe.skip(`${title} (skipped: ${reason})`, body)
  const fail = () => {
    throw new Error(reason)
  }
  return (title) => void describe(title, () => void it("has its services", fail))
}

/** A suite that uses services of the environment, or shared ones (`shared`). Awaited at the top of a test file. */
export const needing = (...names: ReadonlyArray<Name>): Promise<Suite> => suite(names, false)

/** A suite that has services of its own, to stop and to kill (`kafka`, `postgres`, `pulsar`). */
export const owning = (...names: ReadonlyArray<Name>): Promise<Suite> => suite(names, true)
