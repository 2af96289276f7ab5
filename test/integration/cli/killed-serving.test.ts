// SIGKILL during bulk ingest and during streaming, of a real process. `npm run fault -- serving` is the long form, also on Kafka.
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, onTestFinished, test } from "vitest"
import { survive } from "../../fault/serving/survive.ts"
import { removed } from "../../support/removed.ts"
import { seed } from "../../support/random.ts"

test(`clients that send again with the same ids and resume from their last id have each event once after two kills (seed ${seed})`, async () => {
  const data = mkdtempSync(join(tmpdir(), "millrace-killed-"))
  onTestFinished(() => removed(data))
  const report = await survive({
    environment: {},
    processes: [["--data", data]],
    name: "killed",
    events: 4_000,
    batch: 200,
    kills: 2,
    seed
  })
  expect(report).toMatchObject({ events: 4_000, kills: 2 })
  expect(report.resumed).toBeGreaterThanOrEqual(2)
}, 300_000)
