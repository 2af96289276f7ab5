// How `millrace sql` prints rows in each format.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Cli from "../../support/cli.ts"
import { database } from "../../support/postgres.ts"

it.live(
  "millrace sql prints every column, even if several have the same name",
  () =>
    Effect.gen(function* () {
      const { url } = yield* database
      const query = "select count(*), count(distinct i / 2), null as none, 'a,b' as text from generate_series(1, 5) i"
      const printed = Effect.fnUntraced(function* (format: string, what: string) {
        const { code, errors, output } = yield* Cli.run({ MILLRACE_DATABASE_URL: url }, "sql", "--format", format, what)
        assert.deepStrictEqual([code, errors], [0, ""])
        return output
      })
      assert.strictEqual(yield* printed("tsv", query), "5\t3\t\ta,b\n")
      assert.strictEqual(yield* printed("csv", query), 'count,count,none,text\n5,3,,"a,b"\n')
      assert.match(yield* printed("table", query), /│ 5 {5}│ 3 {5}│ {6}│ a,b {2}│/)
      assert.deepStrictEqual(JSON.parse(yield* printed("json", query)), [
        { count: 5, count_2: 3, none: null, text: "a,b" }
      ])
      assert.strictEqual(yield* printed("json", "select 1 where false"), "[]\n")
    }).pipe(Effect.scoped),
  60_000
)
