// Malformed requests over all routes against a whole system: no failure, and nothing is stored that was not accepted. `npm run fuzz` sends a million.
import * as Effect from "effect/Effect"
import { expect, test } from "vitest"
import { fuzz } from "../../fuzz/fuzz.ts"
import { server } from "../../support/postgres.ts"
import { seed } from "../../support/random.ts"
import { isLong } from "../../support/size.ts"

const requests = isLong ? 100_000 : 5_000

test(
  `malformed requests are refused in the form of a problem, and what is accepted is in the log and in SQL once (npm run fuzz -- --seed ${seed} --requests ${requests})`,
  { timeout: 600_000 },
  async () => {
    const report = await Effect.runPromise(
      Effect.scoped(Effect.flatMap(server, (url) => fuzz(url, { seed, requests })))
    )
    const { findings, stalls, ...figures } = report
    // how long the event loop stood still says something on an idle machine only: the command asserts it
    process.stdout.write(`${JSON.stringify({ ...figures, stallMs: stalls.map(({ stallMs }) => stallMs) })}\n`)
    expect(findings).toEqual([])
    expect(report.operations).toBeGreaterThan(35)
    expect(report.accepted).toBeGreaterThan(requests / 40)
    expect(report.statuses["400"]).toBeGreaterThan(requests / 10)
  }
)
