// `millrace tail --url`: what a server streams over HTTP is printed as from the log, once, also when the server is away for a while.
import { createServer } from "node:http"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { make } from "../../../src/memory/log.ts"
import { positionToken } from "../../../src/log/position-token.ts"
import type { Principal } from "../../../src/server/access/principal.ts"
import type { ServeOptions } from "../../../src/server/server.ts"
import { certificate } from "../../support/certificates.ts"
import * as Cli from "../../support/cli.ts"
import { TcpProxy } from "../../support/tcp-proxy.ts"
import { startViews } from "../../support/views.ts"
import { alert, declare, publish, start, type Server } from "../../support/http.ts"

const serving = (options: Partial<ServeOptions> = {}, log?: Server["log"]) =>
  Effect.acquireRelease(
    Effect.promise(() => start({ limits: { eventLoopDelayMs: 0 }, ...options }, log)),
    ({ stop }) => Effect.promise(stop)
  )
const topic = ["tail", "alerts.v1", "--json"]
interface Shown {
  readonly topic: string
  readonly partition: number
  readonly position: number
  readonly key: string
  readonly event_id: string
  readonly appended_at: string
}
const shown = (output: string) =>
  output
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Shown)

it.live(
  "prints what the server has from a start, with every field and digit of the log, and refuses what it does not have",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* serving()
        const exact = { ...alert("exact", "N1"), value: '{"score":12345678901234567890.10,"note":"\\"value\\":1"}' }
        yield* Effect.promise(() => publish(server, [exact, alert("second", "N2"), alert("third", "N1")]))
        const run = (...args: ReadonlyArray<string>) => Cli.run({}, ...topic, "--url", server.url, ...args)
        const all = yield* run("--from", "earliest", "--max", "3")
        assert.strictEqual(all.code, 0, all.errors)
        const first = all.output.split("\n").find((line) => line.includes("exact"))!
        assert.isTrue(first.endsWith(`"value":${exact.value}}`), first)
        const [{ appended_at: appended, event_id: id, key, partition, position, topic: name }] = [
          JSON.parse(first) as Shown
        ]
        assert.deepStrictEqual([name, id, key], ["alerts.v1", "exact", "N1"])
        assert.isBelow(Math.abs(Date.parse(appended) - Date.now()), 120_000)
        const idsOf = (output: string) => shown(output).map(({ event_id: one }) => one)
        const later = yield* run("--from", `${partition}:${position + 1}`, "--key", "N1", "--max", "1")
        assert.deepStrictEqual(idsOf(later.output), ["third"])
        const token = positionToken([{ topic: "alerts.v1", partition, position: position + 1 }])
        const behind = yield* run("--from", token, "--key", "N1", "--max", "1")
        assert.deepStrictEqual(idsOf(behind.output), ["third"])
        const one = yield* run("--partition", `${partition}`, "--from", `${partition}:${position}`, "--max", "1")
        assert.deepStrictEqual(idsOf(one.output), ["exact"])
        const people = yield* Cli.run({}, "tail", "alerts.v1", "--url", server.url, "--from", "1 hour", "--max", "3")
        assert.match(people.output, new RegExp(`^\\S+Z {2}${partition}:${position} {2}\\S+ {2}N1 {2}\\{"score":`, "m"))
        yield* Effect.forEach(
          [
            [["--from", "soon"], 2, /--from is 'soon'/],
            [["--partition", "12"], 2, /--partition is 12, and alerts\.v1 has 12 partitions/],
            [["--from", "99:0"], 2, /--from names partition 99, and alerts\.v1 has 12/],
            [["--from", `${partition}:99`], 1, /has positions 0 to \d, but the stream was at position 99/],
            [["--from", positionToken([{ topic: "x", partition: 0, position: 1 }])], 1, /the token is for "x"/]
          ] as const,
          ([args, code, message]) =>
            Effect.map(run(...args), (wrong) => {
              assert.strictEqual(wrong.code, code, wrong.output)
              assert.match(wrong.errors, message)
            }),
          { concurrency: 2 }
        )
        const unknown = yield* Cli.run({}, "tail", "alert.v1", "--url", server.url)
        assert.match(unknown.errors, /has no topic "alert\.v1"\ntry: did you mean alerts\.v1\?/)
        for (const [url, code, message] of [
          ["127.0.0.1:7070", 2, /--url is not an http:\/\/ or https:\/\/ URL/],
          ["http://127.0.0.1:1", 1, /the server at http:\/\/127\.0\.0\.1:1 cannot be reached: /]
        ] as const) {
          const wrong = yield* Cli.run({}, "tail", "alerts.v1", "--url", url)
          assert.strictEqual(wrong.code, code, wrong.errors)
          assert.match(wrong.errors, message)
        }
      })
    ),
  180_000
)

it.live(
  "prints each record once when the server is restarted, and when it is away",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const log = make().log
        yield* Effect.promise(() => declare(log))
        const first = yield* Effect.promise(() => start({ limits: { eventLoopDelayMs: 0 } }, log))
        const send = (server: Pick<Server, "log">, from: number) =>
          Effect.promise(() =>
            publish(
              server as Server,
              Array.from({ length: 30 }, (_, i) => alert(`a${from + i}`, `N${i % 7}`))
            )
          )
        yield* send(first, 0)
        const tail = yield* Cli.start({}, ...topic, "--url", first.url, "--from", "earliest", "--max", "90")
        yield* tail.said(/"a29"/)
        yield* Effect.promise(() => first.stop())
        // it is away while records come
        yield* send({ log }, 30)
        yield* Effect.sleep(500)
        const second = yield* serving({ port: first.port }, log)
        yield* tail.said(/"a59"/)
        yield* send(second, 60)
        assert.strictEqual(yield* tail.ended, 0, tail.errors())
        const ids = shown(tail.output()).map(({ event_id: id }) => id)
        assert.deepStrictEqual(ids.toSorted(), Array.from({ length: 90 }, (_, i) => `a${i}`).toSorted())
      })
    ),
  120_000
)

it.live(
  "prints each record once, wherever the connection is cut",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* serving()
        const proxy = new TcpProxy(server.port)
        yield* Effect.acquireRelease(
          Effect.promise(() => proxy.open()),
          () => Effect.promise(() => proxy.close())
        )
        const [rounds, each] = [12, 40]
        const total = rounds * each
        const url = `http://127.0.0.1:${proxy.port}`
        const tail = yield* Cli.start({}, ...topic, "--url", url, "--from", "earliest", "--max", `${total}`)
        for (let round = 0; round < rounds; round++) {
          const records = Array.from({ length: each }, (_, i) => alert(`c${round * each + i}`, `N${i % 7}`))
          for (const record of records) yield* Effect.promise(() => publish(server, [record]))
          // in every other round there is nothing on its way
          if (round % 2 === 0) yield* tail.said(new RegExp(`"c${round * each + each - 1}"`))
          proxy.cut()
        }
        assert.strictEqual(yield* tail.ended, 0, tail.errors())
        const ids = shown(tail.output()).map(({ event_id: id }) => id)
        assert.deepStrictEqual(ids.toSorted(), Array.from({ length: total }, (_, i) => `c${i}`).toSorted())
      })
    ),
  120_000
)

it.live(
  "prints the rows of a view and their changes, and goes on behind the last one after a cut",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* Effect.acquireRelease(
          Effect.promise(() => startViews()),
          ({ stop }) => Effect.promise(stop)
        )
        const proxy = new TcpProxy(server.port)
        yield* Effect.acquireRelease(
          Effect.promise(() => proxy.open()),
          () => Effect.promise(() => proxy.close())
        )
        const write = (code: string, cents: number) =>
          Effect.promise(() =>
            server.sql.unsafe(
              "insert into keeper_v1.prices values ($1, $2) on conflict (code) do update set cents = excluded.cents",
              [code, cents]
            )
          )
        yield* write("a", 1)
        const url = `http://127.0.0.1:${proxy.port}`
        const tail = yield* Cli.start({}, "tail", "view:prices", "--url", url, "--json", "--max", "4")
        yield* tail.said(/"event":"live"/)
        yield* write("b", 2)
        yield* tail.said(/"code":"b"/)
        proxy.cut()
        yield* write("a", 3)
        yield* tail.said(/"cents":3/)
        yield* write("b", 4)
        assert.strictEqual(yield* tail.ended, 0, tail.errors())
        const rows = tail
          .output()
          .split("\n")
          .filter((line) => line.includes('"upsert"'))
          .map(
            (line) => (JSON.parse(line) as { readonly data: { readonly code: string; readonly cents: number } }).data
          )
        assert.deepStrictEqual(
          rows.map(({ cents, code }) => [code, cents]),
          [
            ["a", 1],
            ["b", 2],
            ["a", 3],
            ["b", 4]
          ]
        )
        const wrong = yield* Cli.run({}, "tail", "view:prices", "--url", url, "--tenant", "acme")
        assert.strictEqual(wrong.code, 2)
      })
    ),
  120_000
)

it.live(
  "sends the key, and gets its tenant's records alone",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const principal: Principal = { name: "acme", tenant: "acme", scopes: new Set(["read"]) }
        const keys = { principalOf: (key: string) => Promise.resolve(key === "mr_acme" ? principal : undefined) }
        const server = yield* serving({ access: { isRequired: true, keys } })
        yield* Effect.promise(() => publish(server, [alert("theirs", "N1", "globex"), alert("own", "N1", "acme")]))
        const args = [...topic, "--url", server.url, "--from", "earliest", "--max", "1"]
        const own = yield* Cli.run({ MILLRACE_API_KEY: "mr_acme" }, ...args)
        assert.deepStrictEqual(
          shown(own.output).map(({ event_id: id }) => id),
          ["own"],
          own.errors
        )
        const refused = yield* Cli.run({}, ...args)
        assert.strictEqual(refused.code, 1)
        assert.match(refused.errors, /try: set MILLRACE_API_KEY to a key with the scope read/)
        const others = yield* Cli.run({ MILLRACE_API_KEY: "mr_acme" }, ...args, "--tenant", "globex")
        assert.match(others.errors, /acme/)
        assert.strictEqual(others.output, "")
      })
    ),
  120_000
)

it.live(
  "refuses an answer that is no stream of events",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const web = yield* Effect.acquireRelease(
          Effect.promise(
            () =>
              new Promise<ReturnType<typeof createServer>>((resolve) => {
                const other = createServer((_, response) => response.end("<html>hello")).listen(0, "127.0.0.1", () =>
                  resolve(other)
                )
              })
          ),
          (other) => Effect.sync(() => other.close())
        )
        const { port } = web.address() as AddressInfo
        const wrong = yield* Cli.run({}, ...topic, "--url", `http://127.0.0.1:${port}`)
        assert.strictEqual(wrong.code, 1)
        assert.match(wrong.errors, /answered 200: <html>hello\ntry: check the URL/)
      })
    ),
  60_000
)

it.live(
  "recognizes a server with TLS by the authority of the settings, and says what to do about any other",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const folder = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-tail-"))),
          (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
        )
        const put = (name: string, text: string) => {
          writeFileSync(join(folder, name), text)
          return join(folder, name)
        }
        const authority = certificate("Test Authority")
        const own = certificate("server", { by: authority, sans: ["DNS:localhost", "IP:127.0.0.1"] })
        const tls = { cert: put("own.pem", own.cert), key: put("own.key", own.key), ca: undefined, needsClients: false }
        const server = yield* serving({ tls })
        yield* Effect.promise(() => publish(server, [alert("secret", "N1")]))
        const args = [...topic, "--url", server.url, "--from", "earliest", "--max", "1"]
        const known = yield* Cli.run({ MILLRACE_CLIENT_TLS_CA: put("ca.pem", authority.cert) }, ...args)
        assert.deepStrictEqual(
          shown(known.output).map(({ event_id: id }) => id),
          ["secret"],
          known.errors
        )
        const unknown = yield* Cli.run({}, ...args)
        assert.deepStrictEqual([unknown.code, unknown.output], [1, ""])
        assert.match(unknown.errors, /do not accept each other: .*\ntry: name the authority of its certificate/)
      })
    ),
  60_000
)
