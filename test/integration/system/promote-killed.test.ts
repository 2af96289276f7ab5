// `millrace promote` on PostgreSQL is killed at its named points, inside the switch too: the next promotion succeeds, and every event is published once.
import { spawn } from "node:child_process"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { query, transaction } from "../../../src/postgres/client/client.ts"
import { createBuild } from "../../../src/postgres/store/builds.ts"
import { closeGates, readOpenGates } from "../../../src/postgres/store/gate.ts"
import type { Projection } from "../../../src/model/projection.ts"
import type { Topic } from "../../../src/model/topic.ts"
import { promote } from "../../../src/system/promote.ts"
import { openSystem, runProjections, runRelay } from "../../../src/system/system.ts"
import { patchedCopy } from "../../fault/harness/patched-copy.ts"
import application from "../../fault/rebuild/application.config.ts"
import { points } from "../../fault/rebuild/points.ts"
import { recordOf } from "../../support/engine.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { isLong } from "../../support/size.ts"

const config = "test/fault/rebuild/application.config.ts"
const ofPromote = points.filter(({ command }) => command === "promote")
const some = new Set(["gate open", "drained", "switch sent", "switched"])
const killedAt = ofPromote.map(({ name }) => name).filter((name) => isLong || some.has(name))

/** Runs a command in a copy of the source until it ends. Returns the signal that ended it. */
const ended = (root: string, args: ReadonlyArray<string>, environment: Readonly<Record<string, string>>) =>
  Effect.callback<string | null>((resume) => {
    const child = spawn(process.execPath, [join(root, "bin/millrace.mjs"), ...args], {
      cwd: root,
      env: { ...process.env, ...environment },
      // a process of a copy ends when its standard input closes
      stdio: ["pipe", "ignore", "inherit"]
    })
    child.on("exit", (_, signal) => resume(Effect.succeed(signal)))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

// processes of a copy end when their standard input closes, which a process of Deno does not notice
describe.skipIf("Deno" in globalThis)("a promoter that is killed", () => {
  it.live(
    `leaves nothing that the next promotion cannot finish or undo: ${killedAt.join(", ")}`,
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const root = yield* server
          const database = { ...(yield* databaseOn(root, 10)), embedded: false, failed: Effect.never }
          const { sql, url } = database
          const copy = yield* Effect.acquireRelease(
            Effect.sync(() => patchedCopy(ofPromote, [config])),
            ({ remove }) => Effect.sync(remove)
          )
          const system = yield* openSystem(application as never, database)
          const { log } = system
          const projection = application.projections[0]!.projection as unknown as Projection.Any
          const source = projection.sources[0] as Topic.Any
          const run = (text: string) => query("test", () => sql.unsafe<Array<Record<string, unknown>>>(text))
          const until = Effect.fnUntraced(function* (condition: string) {
            for (let i = 0; i < 1_500; i++) {
              if ((yield* run(`select (${condition}) as ok`))[0]!["ok"] === true) return
              yield* Effect.sleep(10)
            }
            assert.fail(`never: ${condition}`)
          })
          let fed = 0
          const feed = Effect.suspend(() =>
            log.append(
              source.name,
              Array.from({ length: 20 }, () => {
                const n = fed++
                return recordOf(source, { id: `e${n}`, key: `k${n % 7}`, n, at: 1_000 + n }, 4)
              })
            )
          )
          const live = Effect.map(run("select version from millrace.live"), ([row]) => Number(row!["version"]))
          yield* transaction(sql, (tx) => createBuild(tx, projection, { partitionsOf: () => 4, startOf: () => 0 }))
          yield* Effect.forkScoped(runProjections(system))
          yield* Effect.forkScoped(runRelay(system))
          for (const name of killedAt) {
            yield* feed
            const args = ["promote", projection.name, "--config", config, "--build", String(3 - (yield* live))]
            const environment = { MILLRACE_DATABASE_URL: url, MILLRACE_POINT: `kill:${name}:1` }
            assert.strictEqual(yield* ended(copy.root, [...args, "--timeout", "60s"], environment), "SIGKILL", name)
            yield* feed
            const build = 3 - (yield* live)
            const request = { name: projection.name, build, rollback: false, dryRun: false, timeoutMs: 60_000 }
            const done = yield* promote({ application: application as never, sql, log, on: "PostgreSQL" }, request)
            assert.deepInclude(done, { from: 3 - build, to: build, state: "promoted" }, name)
            yield* closeGates(sql)
            assert.deepStrictEqual(yield* readOpenGates(sql), [], name)
          }
          for (const build of [1, 2]) yield* until(`(select count(*) from ledger_v${build}.entries) = ${fed}`)
          yield* until(
            `(select sum(records) from millrace.log_batch b join millrace.log_topic t using (topic_id) where t.name = 'fault.copies') = ${fed}`
          )
          const halted = yield* run("select halted from millrace.relay_position where halted is not null")
          assert.deepStrictEqual([...halted], [])
        })
      ),
    180_000
  )
})
