// `millrace subscribe`: what it prints, where it begins, and that it acknowledges what it has printed and nothing else.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { startOf } from "../../src/cli/messages.ts"
import { FanOut } from "../../src/fanout.ts"
import { query } from "../../src/postgres/client.ts"
import { options, sent, topicWith, Topics, upTo, within } from "../contract/fanout-support.ts"
import { command, startCommand } from "../support/command.ts"
import { fanOutOn } from "../support/fanout.ts"
import { databaseOn, server } from "../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

interface Printed {
  readonly seq: number
  readonly key: string
  readonly value: { readonly seq: number }
  readonly stream: string
}
const printed = (out: string) =>
  out
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Printed)

describe("millrace subscribe", () => {
  it.live(
    "prints messages, acknowledges what it printed, and goes on from there",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { sql, url } = yield* databaseOn(root)
          yield* Effect.gen(function* () {
            const [fanOut, topics] = [yield* FanOut, yield* Topics]
            const topic = yield* topicWith(2)
            yield* topics.publish(topic, sent(10, 1, 4, 2))
            const named = ["subscribe", topic, "--name", "mine", "--type", "shared", "--json"]
            const first = yield* command(url, ...named, "--from", "earliest", "--max", "6")
            assert.deepStrictEqual([first.code, first.err], [0, ""])
            const some = printed(first.out)
            assert.lengthOf(some, 6)
            const { key, seq, stream, value } = some[0]!
            assert.deepStrictEqual([stream, value], ["s", { key, seq } as never])
            // until it is interrupted
            const rest = startCommand(url, named, (out) => {
              // not its own `kill`, after which Deno tells no exit code
              if (printed(out).length === 6) process.kill(rest.child.pid!, "SIGINT")
            })
            yield* topics.publish(topic, sent(12, 11, 4, 2))
            const second = yield* Effect.promise(() => rest.ended)
            assert.strictEqual(second.code, 0, second.err)
            const all = [...some, ...printed(second.out)].map((message) => message.seq)
            assert.deepStrictEqual(
              all.toSorted((a, b) => a - b),
              upTo(12)
            )
            const mine = yield* fanOut.subscribe(options(topic, "shared", { name: "mine" }))
            assert.deepStrictEqual(yield* within(mine, 300), [])
            // without a name nothing of it is left; places and --seek
            const placed = yield* command(url, "subscribe", topic, "--from", "0:5,1:99", "--max", "1")
            assert.match(placed.out, /^\S+Z {2}0:5 {2}k\d {2}\{"seq":\d+,"key":"k\d"\}\n$/)
            const names = yield* query(
              "names",
              () => sql<Array<{ name: string }>>`select name from millrace.subscription`
            )
            assert.deepStrictEqual(
              names.map(({ name }) => name),
              ["mine"]
            )
            const wrong = yield* command(url, "subscribe", topic, "--from", "tomorrow")
            assert.strictEqual(wrong.code, 2)
            assert.match(wrong.err, /--from tomorrow is no place\ntry: --from earliest/)
            assert.match((yield* command(url, "subscribe", "nowhere")).err, /there is no such topic/)
          }).pipe(Effect.provide(fanOutOn(sql)))
        })
      ),
    240_000
  )
  it("understands where to begin", () => {
    assert.deepStrictEqual(
      ["earliest", "latest", "1:7", "0:1,2:3", "2 hours", "1970-01-01T00:00:05Z", "", "soon", "1:"].map((text) =>
        startOf(text, 10_000_000)
      ),
      [
        "earliest",
        "latest",
        { places: [{ partition: 1, position: 7 }] },
        {
          places: [
            { partition: 0, position: 1 },
            { partition: 2, position: 3 }
          ]
        },
        { time: 2_800_000 },
        { time: 5_000 },
        undefined,
        undefined,
        undefined
      ]
    )
  })
})
