// A subscription to the topic of an aggregate, in a program and by `millrace subscribe`.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as PostgresEvents from "../../../src/postgres/events/events.ts"
import { FanOut } from "../../../src/subscription/fanout.ts"
import { appendOf, events } from "../../contract/event-store-support.ts"
import { options, within } from "../../contract/fanout-support.ts"
import { command } from "../../support/command.ts"
import { onFanOut } from "../../support/fanout.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

describe("A subscription to the topic of an aggregate", () => {
  it.live(
    "delivers its events in the order of each stream, with their versions and commands",
    () =>
      onFanOut(
        root,
        Effect.fnUntraced(function* ({ sql, url }) {
          const { store } = PostgresEvents.make(sql)
          yield* store.declare([{ name: "cases", partitions: 1 }])
          yield* store.append(appendOf("cases", "a", 0, events(2)), "first")
          yield* store.append(appendOf("cases", "a", 2, events(1, 3)), "second")
          const fanOut = yield* FanOut
          const consumer = yield* fanOut.subscribe(options("cases", "exclusive", { name: "program" }))
          const delivered = yield* within(consumer, 500)
          const expected = [
            ["a", "1", "first"],
            ["a", "2", "first"],
            ["a", "3", "second"]
          ]
          const shown = ({ key, properties }: { key: string; properties: Readonly<Record<string, string>> }) => [
            key,
            properties["millrace-version"],
            properties["millrace-command"]
          ]
          assert.deepStrictEqual(delivered.map(shown), expected)
          const printed = yield* command(url, "subscribe", "cases", "--from", "earliest", "--max", "3", "--json")
          assert.deepStrictEqual([printed.code, printed.err], [0, ""])
          const lines = printed.out.split("\n").slice(0, -1)
          assert.deepStrictEqual(
            lines.map((line) => shown(JSON.parse(line) as never)),
            expected
          )
        })
      ),
    60_000
  )
})
