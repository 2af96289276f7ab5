// `millrace timers` on a stopped system: what it lists, what a dry run would take, and what it takes.
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { query } from "../../../src/postgres/client/client.ts"
import * as Cli from "../../support/cli.ts"
import { commandTests } from "../../support/command-tests.ts"

const { database } = commandTests("timers")
const [one, two] = ["5d2c1a52-0000-4000-8000-000000000001", "5d2c1a52-0000-4000-8000-000000000002"]

it.live(
  "a dry run of retry and discard names what it would take, and changes nothing",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql, url } = yield* database
        const environment = { MILLRACE_DATABASE_URL: url }
        const migrated = yield* Cli.run(environment, "migrate", "--config", "test/support/counting.config.ts")
        assert.strictEqual(migrated.code, 0, migrated.errors)
        const timers = (...args: ReadonlyArray<string>) => Cli.run(environment, "timers", ...args)
        const stored = () =>
          query(
            "timers",
            () => sql<Array<{ id: string; far: boolean }>>`
              select timer_id as id, next_try > now() + interval '30 minutes' as far from millrace.timer order by 1`
          )
        for (const [id, failed] of [
          [one, null],
          [two, "no such account"]
        ] as const)
          yield* query(
            "insert a timer",
            () => sql`insert into millrace.timer (timer_id, projection, topic, partition, position, number, key, name, slot, due, aggregate, stream, command,
              correlation_id, causation_id, next_try, attempts, failed) values (${id}, 'counting', 'moves', 0, 0, 0, 'k', 't', ${id}, now() + interval '1 day',
              'case', 's', '{"type":"close"}', 'c', 'c', now() + interval '1 hour', 2, ${failed})`
          )
        const both = [
          { id: one, far: true },
          { id: two, far: true }
        ]

        const retried = yield* timers("retry", "--all", "--dry-run")
        assert.strictEqual(retried.code, 0, retried.errors)
        assert.match(retried.output, /no such account[^]*\n1 command would be tried again now\n$/)
        const discarded = yield* timers("discard", "--all", "--dry-run", "--json")
        assert.deepStrictEqual(JSON.parse(discarded.output), { dry_run: true, ids: [one, two] })
        assert.deepInclude(yield* timers("discard", "--dry-run"), { code: 2 })
        const missing = yield* timers("retry", one, two, "--dry-run")
        assert.deepInclude(missing, { code: 1 })
        assert.match(missing.errors, new RegExp(`no command that failed has this id: ${one}`))
        assert.deepStrictEqual([...(yield* stored())], both)

        const done = yield* timers("retry", "--all")
        assert.deepInclude(done, { code: 0, output: "1 command to be tried again now\n" })
        assert.deepStrictEqual(
          (yield* stored()).map(({ far }) => far),
          [true, false]
        )
        assert.deepInclude(yield* timers("discard", one), { code: 0, output: "1 command discarded\n" })
        assert.deepStrictEqual(
          (yield* stored()).map(({ id }) => id),
          [two]
        )
      })
    ),
  60_000
)
