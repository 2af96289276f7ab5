// A retry on PostgreSQL is as late as its event was when it failed, and `millrace dlq retry` reports how many contributions were late.
import { fileURLToPath } from "node:url"
import { afterAll, afterEach, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { query } from "../../../src/postgres/client/client.ts"
import { append, engine, run, settled } from "../../support/engine.ts"
import { command } from "../../support/command.ts"
import { application, events, fails } from "../../support/dead-letter-application.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
afterEach(() => void (fails.for = new Set(["bad"])))

const configured = ["--config", fileURLToPath(new URL("../../support/dead-letter-application.ts", import.meta.url))]
const hour = 3_600_000
const noon = Date.UTC(2026, 0, 1, 12)
let made = 0
/** A new event, hours after noon. */
const at = (hours: number, does = "") => ({ id: `e${made++}`, key: "a", at: noon + hours * hour, does })

it.live(
  "a retry counts an event in a window that has closed since it failed, and reports what was late even when it failed",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const made = yield* engine(root, application())
        // when the first of the bad ones fails, its hour is open; when the second does, its hour has closed
        yield* append(made, events, [at(0), at(0.5, "bad"), at(-2, "bad"), at(5)])
        const first = yield* run(made)
        yield* settled(made)
        yield* first
        fails.for.clear()
        // as a process that runs the projection announces itself
        yield* query(
          "announce a process",
          () => made.sql`insert into millrace.process (process_id, host, pid, roles, projections, targets)
        values (gen_random_uuid(), 'here', 1, '{projections}', '{watch_v1}', '{}')`
        )
        const stop = yield* run(made)
        const { code, out } = yield* command(made.url, "dlq", "retry", "--all", "--json", ...configured)
        assert.deepStrictEqual([code, JSON.parse(out)], [0, { retried: 2, processed: 2, failed_again: 0, late: 1 }])
        yield* settled(made)
        const counted = yield* query(
          "hours",
          () => made.sql`select window_start as start, events from watch_v1.hours order by window_start`
        )
        assert.deepStrictEqual(
          counted.map(({ events, start }) => [(Number(start) - noon) / hour, events]),
          [
            [0, 2],
            [5, 1]
          ]
        )
        const late = yield* query(
          "late",
          () => made.sql`select window_start as start, stream_time as time from millrace.late_events`
        )
        assert.deepStrictEqual(
          late.map(({ start, time }) => [(Number(start) - noon) / hour, (Number(time) - noon) / hour]),
          [[-2, 0.5]]
        )
        const [progress] = yield* query(
          "progress",
          () => made.sql`select max(stream_time) as time from millrace.progress`
        )
        assert.strictEqual(progress!["time"], noon + 5 * hour)
        // one that fails again, in words
        fails.for.add("bad")
        yield* append(made, events, [at(6, "bad")])
        yield* settled(made)
        const text = yield* command(made.url, "dlq", "retry", "--all", ...configured)
        assert.deepStrictEqual([text.code, text.out], [1, "1 sent again; 0 processed, 1 failed again\n"])
        assert.match(text.err, /^millrace: \d+ failed again: TypeError: cannot handle e\d+$/m)
        yield* stop
      })
    ),
  60_000
)
