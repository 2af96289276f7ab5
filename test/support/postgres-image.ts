// The PostgreSQL cluster that the servers of test files start from: the first file of a run that needs one creates it, and each file has a copy.
//
// A copy costs a tenth of the processor time that creating a cluster and migrating a database take.
import { execFile } from "node:child_process"
import { appendFileSync, chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import * as Effect from "effect/Effect"
import { connect, query } from "../../src/postgres/client/client.ts"
import { migrate } from "../../src/postgres/client/migrate.ts"
import * as Embedded from "../../src/postgres/embedded/embedded.ts"
import { lock } from "../../stack/jars.ts"
import { imagePath } from "./run-directory.ts"

/** The database of the image that others are copied from: it has the project's tables, and nobody is connected to it. */
export const template = "template_migrated"

/** Whether this process is one of a test runner, which removes the image in the end. */
export const hasImage = "__vitest_worker__" in globalThis

const patienceMs = 120_000

/** Puts the cluster of the image, and its password, into an empty state directory. */
export const copyImage = async (state: string): Promise<void> => {
  const image = imagePath(process.ppid)
  const deadline = Date.now() + patienceMs
  while (!existsSync(image)) {
    const release = lock(`${image}.lock`)
    try {
      if (release !== undefined && !existsSync(image)) await make(image)
    } finally {
      release?.()
    }
    if (Date.now() > deadline) throw new Error(`another process creates ${image} for two minutes`)
    if (release === undefined) await sleep(20)
  }
  // a cluster that root creates belongs to another account, which Node's own copies do not keep
  await promisify(execFile)("cp", ["-a", join(image, "postgres"), join(image, "password"), state])
}

const make = async (image: string): Promise<void> => {
  const fresh = `${image}-${process.pid}`
  mkdirSync(fresh)
  // the account of a server that root starts must reach its files
  chmodSync(fresh, 0o711)
  try {
    await Effect.runPromise(Effect.scoped(fill(fresh)))
    for (const entry of readdirSync(fresh))
      if (entry !== "postgres" && entry !== "password") rmSync(join(fresh, entry), { recursive: true })
    // a machine that fails in the middle of a test fails the test: what tests kill are processes
    appendFileSync(join(fresh, "postgres", "postgresql.conf"), "fsync = off\n")
    renameSync(fresh, image)
  } finally {
    rmSync(fresh, { recursive: true, force: true })
  }
}
const fill = Effect.fnUntraced(function* (state: string) {
  const { url } = yield* Embedded.start({ dataDir: state })
  const admin = yield* connect(url, { max: 1 })
  yield* query("create", () => admin.unsafe(`create database ${template}`))
  const own = new URL(url)
  own.pathname = `/${template}`
  yield* Effect.scoped(Effect.flatMap(connect(own.href, { max: 2 }), (sql) => migrate(sql)))
})
