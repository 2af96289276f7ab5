// Clients that follow a table of real processes: one by HTTP whose server is killed again and again, and `millrace tail view:NAME`.
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { positionToken } from "../../../src/log/position-token.ts"
import * as Cli from "../../support/cli.ts"
import { commandTests, succeeding } from "../../support/command-tests.ts"
import { followView, type Row } from "../../support/follow.ts"

const { database, directory } = commandTests("following")
const config = ["--config", "test/support/counting.config.ts"]
interface Printed {
  readonly event: string
  readonly data: Row
}
const changesIn = (list: ReadonlyArray<Printed>) =>
  list
    .filter(({ event }) => event === "upsert" || event === "delete")
    .map(({ data, event }) => [event, data["who"], data["payments"]])

it.live(
  "a client whose server is killed gets every change once, as one of another process does",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql, url } = yield* database
        const environment = { MILLRACE_DATABASE_URL: url }
        const ok = succeeding(environment)
        yield* ok("migrate", ...config)
        yield* Cli.start(environment, "start", "--roles", "projections", "--port", "0", ...config)
        const serve = Effect.gen(function* () {
          const started = yield* Cli.start(environment, "start", "--roles", "api", "--port", "0", ...config)
          const found = yield* started.said(/http:\/\/127\.0\.0\.1:\d+/)
          return { kill: () => started.process.kill("SIGKILL"), url: found }
        })
        let sent = 0
        const send = Effect.fnUntraced(function* (count: number) {
          const file = join(directory, `events-${sent}`)
          const events = Array.from({ length: count }, () => ({
            type: "paid",
            id: `p${sent}`,
            who: `w${sent++ % 7}`,
            at: 1_700_000_000_000
          }))
          writeFileSync(file, events.map((event) => JSON.stringify(event)).join("\n"))
          yield* ok("ingest", file, ...config)
        })
        const counted = Effect.promise(async () => {
          const [row] = await sql`select coalesce(sum(payments), 0)::int8 as n from public.counts`
          return row!["n"] as number
        })
        const settled = Effect.gen(function* () {
          while ((yield* counted) < sent) yield* Effect.sleep(20)
        })
        yield* send(7)
        yield* settled
        let server = yield* serve
        const follower = followView(() => `${server.url}/v1/views/counts/changes`)
        // both have the same rows to begin with
        yield* Effect.promise(() => follower.run(1_000, follower.isLive))
        const tail = yield* Cli.start(environment, "tail", "view:counts", "--json", ...config)
        yield* tail.said(/"event":"live"/)
        const total = () => [...follower.rows.values()].reduce((sum, { payments }) => sum + Number(payments), 0)
        for (const count of [40, 60]) {
          const running = server
          const following = Effect.promise(() => follower.run(Infinity).catch(() => "reset"))
          yield* Effect.raceFirst(
            following,
            Effect.andThen(
              send(count),
              Effect.sync(() => running.kill())
            )
          )
          yield* Effect.sync(() => running.kill())
          server = yield* serve
        }
        yield* settled
        while (total() < sent) yield* Effect.promise(() => follower.run(100, () => total() === sent))
        const printed = () =>
          tail
            .output()
            .split("\n")
            .filter((line) => line.endsWith("}"))
            .map((line) => JSON.parse(line) as Printed)
        while (changesIn(printed()).length < changesIn(follower.got).length) yield* Effect.sleep(20)
        const byKey = (list: ReadonlyArray<Printed>) => Object.groupBy(changesIn(list), ([, who]) => String(who))
        assert.deepStrictEqual(byKey(follower.got), byKey(printed()))
        assert.deepStrictEqual(follower.faults, [])
        assert.deepStrictEqual(
          follower.got.filter(({ event }) => event === "snapshot").map(({ data }) => data["reason"]),
          ["start"]
        )

        const first = yield* ok("tail", "view:counts", "--max", "2", ...config)
        assert.match(
          first.output,
          /^snapshot {2}\{"view":"counts","reason":"start"\}\nupsert {2}\{"who":"w0",.*\}\nupsert {2}\{"who":"w1",.*\}\n$/
        )
        const token = positionToken([{ topic: "counting.payments", partition: 0, position: 1 }])
        const waited = yield* ok("tail", "view:counts", "--max", "2", "--from", token, ...config)
        assert.strictEqual(waited.output, first.output)
        yield* Effect.forEach(
          [
            [["view:count"], 1, /has no table, window or view "count"\ntry: did you mean counts\?/],
            [["view:counts", "--key", "w1"], 2, /--key is for records of topics, and counts is a view/],
            [
              ["view:counts", "--from", "1 hour"],
              2,
              /--from is '1 hour'; of a view it must be earliest, latest or a token/
            ]
          ] as const,
          ([args, code, message]) =>
            Effect.map(Cli.run(environment, "tail", ...args, ...config), (wrong) => {
              assert.strictEqual(wrong.code, code, wrong.output)
              assert.match(wrong.errors, message)
            }),
          { concurrency: 3 }
        )
      })
    ),
  240_000
)
