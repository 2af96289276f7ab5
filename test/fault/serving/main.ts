// `npm run fault -- serving`: clients of bulk ingest and of streams, while the processes are killed. With MILLRACE_KAFKA_BROKERS and
// MILLRACE_DATABASE_URL on these, in two processes, else embedded in one.
//   npm run fault -- serving [--kills 20] [--events 50000] [--batch 500] [--seed N]
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Cli from "../../support/cli.ts"
import { seed } from "../../support/random.ts"
import { survive } from "./survive.ts"

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "20" },
    events: { type: "string", default: "50000" },
    batch: { type: "string", default: "500" },
    seed: { type: "string", default: String(seed) }
  }
})
const options = {
  name: `serving-${Date.now().toString(36)}`,
  kills: Number(values.kills),
  events: Number(values.events),
  batch: Number(values.batch),
  seed: Number(values.seed)
}
const { MILLRACE_DATABASE_URL: database = "", MILLRACE_KAFKA_BROKERS: brokers = "" } = process.env
const onKafka = async () => {
  const url = new URL(database)
  const admin = new URL(database)
  url.pathname = `/${options.name.replaceAll("-", "_")}`
  const { default: postgres } = await import("postgres")
  const sql = postgres(admin.href, { max: 1 })
  await sql.unsafe(`create database ${url.pathname.slice(1)}`)
  const environment = { MILLRACE_DATABASE_URL: url.href, MILLRACE_KAFKA_BROKERS: brokers, TEST_NAME: options.name }
  try {
    const applied = await Effect.runPromise(
      Cli.run(environment, "topics", "apply", "--config", "test/support/serving.config.ts")
    )
    if (applied.code !== 0) throw new Error(applied.errors)
    return await survive({
      ...options,
      environment,
      processes: [
        ["--roles", "gateway,api"],
        ["--roles", "projections,relay"]
      ]
    })
  } finally {
    await sql.unsafe(`drop database ${url.pathname.slice(1)} with (force)`)
    await sql.end()
  }
}
const embedded = async () => {
  const data = mkdtempSync(join(tmpdir(), "millrace-serving-"))
  try {
    return await survive({ ...options, environment: {}, processes: [["--data", data]] })
  } finally {
    rmSync(data, { recursive: true, force: true })
  }
}
process.stderr.write(`seed ${options.seed}\n`)
const report = await (brokers === "" ? embedded() : onKafka())
process.stdout.write(`${JSON.stringify({ on: brokers === "" ? "embedded" : "kafka", ...report })}\n`)
