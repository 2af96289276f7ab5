// `millrace tail` and `millrace topics list`: what a topic has and gets, by filters and from a start, and who uses which topic.
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { positionToken } from "../../../src/log/position-token.ts"
import * as Cli from "../../support/cli.ts"
import { commandTests, succeeding } from "../../support/command-tests.ts"

const { database, directory } = commandTests("tail")
const config = ["--config", "test/support/counting.config.ts"]
interface Shown {
  readonly partition: number
  readonly position: number
  readonly key: string
  readonly value: { readonly id: string; readonly who: string }
}
const shown = (output: string) =>
  output
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Shown)

it.live(
  "tail prints what a topic has from a start, then what comes, by its filters; topics list says who uses it",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* database
        const environment = { MILLRACE_DATABASE_URL: url }
        const ok = succeeding(environment)
        yield* ok("migrate", ...config)
        const send = (name: string, ids: ReadonlyArray<number>) => {
          const file = join(directory, name)
          const events = ids.map((i) => ({ type: "paid", id: `p${i}`, who: `w${i % 3}`, at: 1_700_000_000_000 + i }))
          writeFileSync(file, events.map((event) => JSON.stringify(event)).join("\n"))
          return ok("ingest", file, ...config)
        }
        yield* send("first", [0, 1, 2, 3, 4, 5])

        const follow = ["tail", "counting.payments", "--key", "w1", "--json"]
        const live = yield* Cli.start(environment, ...follow, "--from", "earliest", "--max", "4")
        yield* live.said(/"p4"/)
        yield* send("second", [6, 7, 8, 10])
        assert.strictEqual(yield* live.ended, 0)
        const records = shown(live.output())
        assert.deepStrictEqual(
          records.map(({ key, value }) => [key, value.id]),
          [1, 4, 7, 10].map((i) => ["w1", `p${i}`])
        )
        const { partition, position } = records[2]!
        const after = yield* ok(...follow, "--from", `${partition}:${position}`, "--max", "2")
        assert.deepStrictEqual(
          shown(after.output).map(({ value }) => value.id),
          ["p7", "p10"]
        )
        // the record at a position, though it is the last one of its partition that has the type, and others come earlier in other partitions
        const place = ["--partition", `${partition}`, "--from", `${partition}:${position}`]
        const one = yield* ok("tail", "counting.payments", ...place, "--max", "1", "--json")
        assert.deepStrictEqual(shown(one.output), [records[2]])
        const tokenAt = (topic: string, at: number) => positionToken([{ topic, partition, position: at }])
        const behind = yield* ok(...follow, "--from", tokenAt("counting.payments", position), "--max", "2")
        assert.strictEqual(behind.output, after.output)
        const lately = yield* ok("tail", "counting.payments", "--from", "1 hour", "--type", "paid", "--max", "10")
        assert.strictEqual(lately.output.trim().split("\n").length, 10)

        yield* Effect.forEach(
          [
            [["counting.payment"], 1, /has no topic counting\.payment\ntry: did you mean counting\.payments\?/],
            [["counting.payments", "--from", "9:0"], 2, /--from names partition 9, and counting\.payments has 6/],
            [["counting.payments", "--from", "soon"], 2, /--from is 'soon'/],
            [["counting.payments", "--partition", "6"], 2, /--partition is 6, and counting\.payments has 6 partitions/],
            [["view:x", "--partition", "6"], 2, /--partition is for records of topics, and x is a view/],
            [
              ["counting.payments", "--from", tokenAt("orders", 1)],
              1,
              /the token is for "orders", and counting\.payments starts at a token for itself\ntry: read a topic that/
            ],
            [
              ["counting.receipts", "--from", tokenAt("orders", 1), ...config],
              1,
              /starts at a token for itself or for what it is derived from \("counting\.payments"\)/
            ]
          ] as const,
          ([args, code, message]) =>
            Effect.map(Cli.run(environment, "tail", ...args), (wrong) => {
              assert.strictEqual(wrong.code, code, wrong.output)
              assert.match(wrong.errors, message)
            }),
          { concurrency: 3 }
        )
        const listed = JSON.parse((yield* ok("topics", "list", "--json", ...config)).output) as {
          readonly log: string
          readonly topics: ReadonlyArray<{ readonly partitions: ReadonlyArray<{ readonly end: number }> }>
        }
        assert.strictEqual(listed.log, "PostgreSQL")
        const described = listed.topics.map(({ partitions, ...one }) =>
          Object.assign(one, { records: partitions.reduce((sum, { end }) => sum + end, 0) })
        )
        const common = { compacted: false }
        const derived = { kind: "derived", ...common, written_by: ["counting"], read_by: [], records: 0 }
        assert.deepStrictEqual(described, [
          { topic: "counting.payments", kind: "events", ...common, written_by: [], read_by: ["counting"], records: 10 },
          { topic: "counting.receipts", ...derived },
          { topic: "counting.payments.counting.dlq", ...derived }
        ] as never)
        const table = yield* ok("topics", "list", ...config)
        assert.match(
          table.output,
          /counting\.receipts +│ derived +│ 6 +│ 0:0 1:0 2:0 3:0 4:0 5:0 +│ counting +│ nobody/
        )
      })
    ),
  120_000
)
