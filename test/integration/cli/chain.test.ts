// A chain of projections in processes that are killed: `dev --once` waits to its end, and what it counts equals an independent fold.
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { partitionOf } from "../../../src/model/partitioner.ts"
import { expectedRows, scansOf } from "../../support/chain.config.ts"
import { run, start } from "../../support/cli.ts"
import { randomOf, seed } from "../../support/random.ts"
import { removed } from "../../support/removed.ts"

const directory = mkdtempSync(join(tmpdir(), "millrace-chain-"))
afterAll(() => removed(directory))

const given = scansOf(6_000, 60)
const input = join(directory, "scans.ndjson")
// the source's partitions one after the other
const order = [2, 0, 3, 1].flatMap((partition) => given.filter(({ parcel }) => partitionOf(parcel, 4) === partition))
writeFileSync(input, order.map((scan) => JSON.stringify(scan)).join("\n"))

it.live(
  `a chain that is killed at random equals an independent fold without a late event, and dev --once waits to its end (seed ${seed})`,
  () =>
    Effect.gen(function* () {
      const random = randomOf(seed)
      const data = join(directory, "data")
      const options = ["--data", data, "--config", "test/support/chain.config.ts", "--input", input, "--port", "0"]
      for (let kill = 0; kill < 2; kill++) {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { said } = yield* start({}, "dev", ...options)
            yield* said(/Millrace is running/)
            // the scope's end kills it
            yield* Effect.sleep(random.int(50, 900))
          })
        )
      }
      const done = yield* run({}, "dev", "--once", "--json", ...options)
      assert.strictEqual(done.code, 0, done.errors)
      const counted = JSON.parse(done.output.trim().split("\n").at(-1)!) as Record<string, number>
      assert.deepStrictEqual([counted["late"], counted["dead_letters"]], [0, 0])
      for (const window of ["hub_days", "kind_days"]) {
        const text = `select hub || ' ' || to_char(window_start at time zone 'UTC', 'YYYY-MM-DD') || ' ' || n as row from ${window}`
        const rows = yield* run({}, "sql", "--data", data, "--format", "json", text)
        const found = (JSON.parse(rows.output) as ReadonlyArray<{ readonly row: string }>).map(({ row }) => row)
        assert.deepStrictEqual(found.toSorted(), expectedRows(given), window)
      }
    }),
  120_000
)
