// Random sequences of starts with changing configurations, rebuilds, cancellations, promotions, ways back and retirements: what holds after each step.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Application, Projection, ReadModel, Topic } from "../../../src/index.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { noteConfigured } from "../../../src/postgres/store/retire.ts"
import * as PostgresStore from "../../../src/postgres/store/store.ts"
import { promote } from "../../../src/system/promote.ts"
import { beginRebuild, cancelRebuild } from "../../../src/system/rebuild.ts"
import { retire } from "../../../src/system/retire.ts"
import { openSystem } from "../../../src/system/system.ts"
import { randomOf, seed } from "../../support/random.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** How long sequences are tried, in milliseconds. */
const forMs = Number(process.env["MILLRACE_RANDOM_VERSIONS_MS"] ?? 5_000)
const steps = 14

const [one, other] = ["one", "other"].map((name) =>
  Topic.records(name, { value: { id: Schema.String }, key: "id", partitions: 1 })
) as [Source, Source]
type Source = Topic<string, { readonly id: string }>
const versionOf = (name: string, version: number) => {
  const table = ReadModel.table(`${name}_rows`, { columns: { id: Schema.String }, primaryKey: ["id"] })
  return Projection.make({
    name,
    version,
    // each version has other sources
    source: version === 1 ? [one] : version === 2 ? [one, other] : [other],
    writes: [table],
    handle: ({ id }, out) => out.upsert(table, { id })
  })
}
const applicationOf = (name: string, versions: ReadonlyArray<number>) =>
  Application.make({
    name: "random",
    projections: versions.map((version) => Projection.async(versionOf(name, version)))
  })

it.live(
  "whatever is done to builds, one of them is live unless all are retired, the views show it, and nothing of dropped ones is left",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = { ...(yield* databaseOn(url, 6)), embedded: false, failed: Effect.never }
        const { sql } = database
        const system = yield* openSystem(applicationOf("p0", [1, 2]), database)
        const store = PostgresStore.make(sql)
        const run = <A extends Record<string, unknown>>(text: string) => query("test", () => sql.unsafe<Array<A>>(text))

        const marked = new Set<string>()
        /** Gives each new build a row that says which one it is. */
        const mark = Effect.fnUntraced(function* (name: string) {
          const found = yield* run<{ v: number }>(
            `select version as v from millrace.projection where name = '${name}' and not dropped`
          )
          for (const { v } of found) {
            if (marked.has(`${name} ${v}`)) continue
            marked.add(`${name} ${v}`)
            yield* run(`insert into ${name}_v${v}.${name}_rows (id) values ('${v}')`)
          }
        })
        const check = Effect.fnUntraced(function* (name: string) {
          const builds = yield* run<{ v: number; retired: boolean; dropped: boolean; live: boolean; modes: unknown }>(
            `select p.version as v, p.retired_at is not null as retired, p.dropped,
              exists (select from millrace.live l where (l.projection, l.version) = (p.name, p.version)) as live,
              (select to_jsonb(array_agg(distinct g.mode)) from millrace.progress g where (g.projection, g.version) = (p.name, p.version)) as modes
            from millrace.projection p where p.name = '${name}' order by 1`
          )
          const current = builds.filter(({ retired }) => !retired)
          assert.strictEqual(
            current.filter(({ live }) => live).length,
            current.length > 0 ? 1 : 0,
            "one live build unless all are retired"
          )
          for (const { dropped, live, modes, retired, v } of builds) {
            assert.deepStrictEqual(modes, [retired ? "frozen" : live ? "live" : "follower"], `the mode of build ${v}`)
            if (!dropped) continue
            const [left] = yield* run<{ n: number }>(
              `select count(*)::int as n from pg_namespace where nspname = '${name}_v${v}'`
            )
            assert.strictEqual(left!.n, 0, `nothing is left of build ${v}`)
          }
          const live = current.find((build) => build.live)
          if (live !== undefined)
            assert.deepStrictEqual(
              (yield* run<{ id: string }>(`select id from public.${name}_rows`)).map(({ id }) => id),
              [String(live.v)],
              "the view shows the live build"
            )
        })

        const began = performance.now()
        let sequences = 0
        let done = 0
        for (let at = seed; sequences < 2 || performance.now() - began < forMs; at++) {
          sequences++
          const { chance, pick } = randomOf(at)
          const name = `r${at}`
          let application = applicationOf(name, [pick([1, 2])])
          const played: Array<string> = []
          const start = Effect.suspend(() =>
            Effect.andThen(
              store.prepare(
                application.projections.map(({ projection }) => projection),
                () => 1
              ),
              noteConfigured(
                sql,
                application.projections.map(({ projection }) => projection)
              )
            )
          )
          const promoting = (rollback: boolean) =>
            promote(
              { application, sql, log: system.log, on: "PostgreSQL" },
              { name, rollback, dryRun: chance(0.2), timeoutMs: 3_000 }
            )
          const retiring = (version: number | undefined, drop: boolean) =>
            retire({ application, sql, targets: [] }, { name, version, drop, dryRun: chance(0.1) })
          yield* start
          for (let step = 0; step < steps; step++) {
            const build = pick([undefined, 1, 2, 3, 4, 5])
            const versions = pick([[1], [2], [1, 2], [3], [2, 3], [1, 2, 3]])
            const [what, action] = pick<readonly [string, () => Effect.Effect<unknown, unknown, Scope.Scope>]>([
              [`start ${versions.join()}`, () => ((application = applicationOf(name, versions)), start)],
              ["start", () => start],
              [
                "rebuild",
                () => beginRebuild({ ...system, application }, name, { rate: undefined, maxLiveLagMs: undefined })
              ],
              ["cancel", () => cancelRebuild(sql, name)],
              ["promote", () => promoting(false)],
              ["promote", () => promoting(false)],
              ["rollback", () => promoting(true)],
              [`retire ${build}`, () => retiring(build, false)],
              [`retire ${build} --drop`, () => retiring(build, true)]
            ])
            played.push(what)
            const exit = yield* Effect.exit(Effect.scoped(action()))
            const because = `seed ${at}: ${played.join("; ")}`
            if (Exit.isSuccess(exit)) done++
            else {
              const error = yield* Effect.flip(Effect.failCause(exit.cause) as Effect.Effect<never, unknown>)
              const { message, try: advice } = error as { readonly message: string; readonly try?: string }
              const isAdvised =
                (advice ?? "") !== "" || /increase version|deploy version|take it out|put it back/.test(message)
              assert.isTrue(isAdvised, `${because}: refused without advice: ${String(message)}`)
            }
            yield* mark(name)
            const checked = yield* Effect.exit(check(name))
            if (Exit.isFailure(checked)) assert.fail(`${because}: ${String(checked.cause)}`)
          }
        }
        assert.isAbove(done, sequences)
        yield* Effect.logInfo(`${sequences} sequences, ${done} of ${sequences * steps} steps not refused`)
      })
    ),
  forMs + 60_000
)
