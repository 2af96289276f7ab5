// 64 writers on one event stream and on 1,000, while backends are terminated and replies are lost: see event-race.ts for what must hold.
import { assert, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Race, runRace } from "../../../support/event-race.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

class Server extends Context.Service<Server, { readonly url: string }>()("test/Server") {
  static readonly layer = Layer.effect(
    Server,
    Effect.map(server, (url) => Server.of({ url }))
  )
}
/** How long each race takes. With a time given, all of them are run; else two. */
const given = process.env["MILLRACE_RACE_MS"]
const ms = Number(given ?? 600)
const all: ReadonlyArray<Pick<Race, "expecting" | "streams">> = [
  { streams: 1, expecting: "any" },
  { streams: 1_000, expecting: "version" },
  { streams: 1, expecting: "version" },
  { streams: 1_000, expecting: "any" }
]
const races = given === undefined ? all.slice(0, 2) : all

it.layer(Server.layer, { timeout: "60 seconds", excludeTestServices: true })("races for event streams", (it) => {
  for (const race of races)
    it.effect(
      `64 writers on ${race.streams === 1 ? "one stream" : "1,000 streams"} that expect ${race.expecting === "any" ? "nothing" : "the version they read"}: nothing is lost, doubled or answered otherwise`,
      Effect.fnUntraced(function* () {
        const database = yield* databaseOn((yield* Server).url)
        const raced = yield* runRace(database, { ...race, writers: 64, ms })
        if (given !== undefined) yield* Effect.logInfo(JSON.stringify({ ...race, ...raced }))
        assert.isAbove(raced.acknowledged, 0)
      }, Effect.scoped),
      120_000 + 4 * ms
    )
})
