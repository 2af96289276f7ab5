// `millrace subscribe`: what it prints, where it starts, and that it acknowledges exactly what it has printed.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { shared } from "../../../stack/testing.ts"
import type { Endpoints } from "../../../stack/service.ts"
import { positionToken } from "../../../src/log/position-token.ts"
import { startOf } from "../../../src/cli/print-messages.ts"
import { FanOut } from "../../../src/subscription/fanout.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { options, sent, topicWith, Topics, upTo, within } from "../../contract/fanout-support.ts"
import { command, startCommand } from "../../support/command.ts"
import { onFanOut } from "../../support/fanout.ts"
import * as Cli from "../../support/cli.ts"
import { server } from "../../support/postgres.ts"
import { environmentOf, fanOutOnPulsar } from "../../support/pulsar.ts"
import { needing, testOverTransports } from "../../support/stack.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

interface Printed {
  readonly partition: number
  readonly position: number
  readonly seq: number
  readonly key: string
  readonly value: { readonly seq: number }
  readonly stream: string
}
/** The messages of the complete lines; a line that is still being written is left out. */
const printed = (out: string) =>
  out
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Printed)

describe("millrace subscribe", () => {
  it.live(
    "says when the connection to PostgreSQL is lost, and when it is back, and misses nothing",
    () =>
      onFanOut(
        root,
        Effect.fnUntraced(function* ({ sql, url }) {
          const topics = yield* Topics
          const topic = yield* topicWith(1)
          yield* topics.publish(topic, sent(1, 1, 1, 1))
          const seen = { lines: 0 }
          const running = startCommand(url, ["subscribe", topic, "--from", "earliest", "--json"], (out) => {
            seen.lines = printed(out).length
          })
          while (seen.lines < 1) yield* Effect.sleep("20 millis")
          let said = ""
          running.child.stderr.on("data", (data: Buffer) => (said += data.toString()))
          yield* query(
            "lose",
            () => sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'millrace log session'
              and datname = current_database() and pid <> pg_backend_pid()`
          )
          while (!said.includes("PostgreSQL answers again; messages are received again"))
            yield* Effect.sleep("20 millis")
          assert.include(said, "the connection to PostgreSQL was lost; no message is received until it is back")
          yield* topics.publish(topic, sent(2, 2, 1, 1))
          while (seen.lines < 2) yield* Effect.sleep("20 millis")
          process.kill(running.child.pid!, "SIGINT")
          const { code, err } = yield* Effect.promise(() => running.ended)
          assert.deepStrictEqual([code, err.match(/was lost/g)?.length], [0, 1])
        })
      ),
    60_000
  )
  it.live(
    "prints messages, acknowledges those that it printed, and the next run continues after them",
    () =>
      onFanOut(
        root,
        Effect.fnUntraced(function* ({ sql, url }) {
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
            // not `child.kill`, after which Deno does not report the exit code
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
          // a subscription without a name leaves nothing behind; it starts at positions
          const placed = yield* command(url, "subscribe", topic, "--from", "0:5,1:99", "--max", "1")
          assert.match(placed.out, /^\S+Z {2}0:5 {2}k\d {2}\{"seq":\d+,"key":"k\d"\}\n$/)
          const at = (name: string) =>
            positionToken([5, 6].map((position, partition) => ({ topic: name, partition, position })))
          const behind = yield* command(url, "subscribe", topic, "--from", at(topic), "--json", "--max", "1")
          assert.strictEqual(printed(behind.out)[0]?.position, 5)
          const elsewhere = yield* command(url, "subscribe", topic, "--from", at("elsewhere"))
          assert.strictEqual(elsewhere.code, 1)
          assert.match(elsewhere.err, /the token is for "elsewhere", and .* starts at a token for itself/)
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
          assert.match(
            wrong.err,
            /--from is 'tomorrow'; it must be earliest, latest, a duration, a date, positions or a token\ntry: --from earliest/
          )
          assert.match((yield* command(url, "subscribe", "nowhere")).err, /the topic does not exist/)
        })
      ),
    240_000
  )
  it.live(
    "ends silently when its output is closed, and messages that were not written are redelivered",
    () =>
      onFanOut(
        root,
        Effect.fnUntraced(function* ({ url }) {
          const topics = yield* Topics
          const topic = yield* topicWith(1)
          yield* topics.publish(topic, sent(3, 1, 1, 1))
          const named = ["subscribe", topic, "--name", "cut", "--json", "--from", "earliest"]
          // as `head` does
          const cut = startCommand(url, named, (out) => {
            if (printed(out).length === 3) cut.child.stdout.destroy()
          })
          yield* Effect.promise(() => new Promise((resolve) => cut.child.stdout.once("close", resolve)))
          yield* topics.publish(topic, sent(5, 4, 1, 1))
          const { code, err } = yield* Effect.promise(() => cut.ended)
          assert.deepStrictEqual([code, err], [0, ""])
          const rest = yield* command(url, ...named, "--max", "2")
          assert.deepStrictEqual(
            printed(rest.out).map(({ seq }) => seq),
            [4, 5]
          )
        })
      ),
    60_000
  )
  it("reads the start of a subscription from a text", () => {
    assert.deepStrictEqual(
      [
        "earliest",
        "latest",
        "p1.W10",
        "p1.W1",
        "1:7",
        "0:1,2:3",
        "2 hours",
        "1970-01-01T00:00:05Z",
        "",
        "soon",
        "1:"
      ].map((text) => startOf(text, 10_000_000)),
      [
        "earliest",
        "latest",
        { token: "p1.W10" },
        undefined,
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

const suite = await needing("pulsar")
suite("millrace subscribe on Pulsar", () => {
  let endpoints: Endpoints = {}
  beforeAll(async () => {
    endpoints = await Effect.runPromise(Scope.provide(shared("pulsar"), scope))
  }, 180_000)

  testOverTransports(
    "begins at the earliest or latest message, at a time or at a position, in all four types: %s",
    (transport) =>
      Effect.gen(function* () {
        const topics = yield* Topics
        const topic = yield* topicWith(2)
        const environment = environmentOf(transport, endpoints, "contract")
        const run = (...args: ReadonlyArray<string>) => Cli.run(environment, "subscribe", topic, ...args)
        const seqs = Effect.fnUntraced(function* (count: number, ...args: ReadonlyArray<string>) {
          const { code, errors, output } = yield* run(...args, "--max", String(count), "--json")
          assert.deepStrictEqual([code, errors], [0, ""])
          return printed(output).toSorted((a, b) => a.seq - b.seq)
        })
        const numbers = (messages: ReadonlyArray<Printed>) => messages.map(({ seq }) => seq)
        yield* topics.publish(topic, sent(10, 1, 4, 2))
        const all = yield* seqs(10, "--from", "earliest", "--type", "keyShared")
        assert.deepStrictEqual(numbers(all), upTo(10))
        // the broker's clock ticks in milliseconds
        yield* Effect.sleep(5)
        const time = new Date().toISOString()
        yield* Effect.sleep(5)
        yield* topics.publish(topic, sent(12, 11, 4, 2))
        assert.deepStrictEqual(numbers(yield* seqs(2, "--from", time, "--type", "shared")), [11, 12])
        assert.deepStrictEqual(numbers(yield* seqs(12, "--from", "1 hour", "--type", "failover")), upTo(12))
        // 7 and those behind it in its partition, and of the other one 12 alone
        const [seventh, last] = [all[6]!, (yield* seqs(2, "--from", time))[1]!]
        assert.notStrictEqual(seventh.partition, last.partition)
        const places = [seventh, last].map(({ partition, position }) => `${partition}:${position}`).join()
        assert.deepStrictEqual(numbers(yield* seqs(4, "--from", places)), [7, 9, 11, 12])
        // whatever is published until it is there
        const latest = yield* Cli.start(environment, "subscribe", topic, "--max", "1", "--json")
        let next = 13
        while (latest.process.exitCode === null) {
          yield* topics.publish(topic, sent(next, next, 4, 2))
          next += 1
        }
        assert.isAbove(printed(latest.output())[0]!.seq, 12)
      }).pipe(Effect.scoped, Effect.provide(fanOutOnPulsar(transport))),
    120_000
  )

  it.live(
    "prints one line that says what is wrong, and one that says what to do",
    () =>
      Effect.gen(function* () {
        const topic = yield* topicWith(1)
        const environment = environmentOf("websocket", endpoints, "contract")
        const refusals: ReadonlyArray<readonly [args: ReadonlyArray<string>, code: number, error: RegExp]> = [
          [
            [topic, "--from", "yesterday"],
            2,
            /^millrace: --from is 'yesterday'; it must be .*\ntry: --from earliest, .*\n$/
          ],
          [[topic, "--from", "1:7"], 1, /^millrace: .* partition 1 does not exist; \S+ has partition 0 only\n$/],
          [[topic, "--max", "0"], 2, /^millrace: --max is 0; it must be at least 1\ntry: --max 10, .*\n$/],
          [
            ["nowhere"],
            1,
            /^millrace: .* persistent:.*nowhere does not exist; set MILLRACE_PULSAR_TENANT .*\ntry: one of events.raw.v1, .*\n$/
          ]
        ]
        for (const [args, code, error] of refusals) {
          const ended = yield* Cli.run(environment, "subscribe", ...args)
          assert.match(ended.errors, error)
          assert.deepStrictEqual([ended.code, ended.output], [code, ""])
        }
        const odd = yield* Cli.run(environment, "subscribe", topic, "--type", "fanout")
        assert.strictEqual(odd.code, 2)
        assert.match(odd.errors, /Invalid value for flag --type: "fanout"\. Expected: "exclusive"/)
      }).pipe(Effect.scoped, Effect.provide(fanOutOnPulsar("websocket"))),
    60_000
  )
})
