// `millrace start` while its database is away: what its first line says, that it waits, and what makes it end.
import { createServer, connect as connectTo, type AddressInfo, type Socket } from "node:net"
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { afterAll, beforeAll } from "vitest"
import * as Cli from "../../support/cli.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
}, 120_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const config = ["--config", "test/support/counting.config.ts"]
const withPort = (url: string, port: number) => {
  const moved = new URL(url)
  moved.port = String(port)
  return moved.href
}
/** A port on which nothing listens. */
const freePort = Effect.promise(async () => {
  const probe = createServer()
  await new Promise<void>((done) => probe.listen(0, "127.0.0.1", done))
  const { port } = probe.address() as AddressInfo
  await new Promise((done) => probe.close(done))
  return port
})
/** Forwards a port to the database from now on. */
const forward = (port: number, url: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const proxy = createServer((client) => {
        const backend = connectTo(Number(new URL(url).port), "127.0.0.1")
        // a session of a process that was killed must end, too: its database could not be dropped otherwise
        for (const [one, other] of [
          [client, backend],
          [backend, client]
        ] as const)
          one.on("error", () => one.destroy()).on("close", () => other.destroy())
        client.pipe(backend).pipe(client)
      })
      // another program's connection may have the port for a moment
      const listen = () =>
        new Promise<boolean>((done) => {
          proxy.once("error", () => done(false)).listen(port, "127.0.0.1", () => done(true))
        })
      while (!(await listen())) await new Promise((done) => setTimeout(done, 100))
      return proxy
    }),
    (proxy) => Effect.sync(() => proxy.close())
  )
const readiness = (port: number) =>
  Effect.promise(async () => {
    // the line in the log may come just before the server
    for (
      let i = 0;
      i < 100 &&
      !(await fetch(`http://127.0.0.1:${port}/healthz`).then(
        () => true,
        () => false
      ));
      i++
    )
      await new Promise((done) => setTimeout(done, 20))
    const response = await fetch(`http://127.0.0.1:${port}/readyz`)
    return { status: response.status, body: (await response.json()) as { readonly waiting_for?: string } }
  })

const got = (port: number, path: string) =>
  Effect.promise(async () => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`)
    return { status: response.status, text: await response.text() }
  })
/** A port that accepts connections and never answers. */
const silentPort = Effect.map(
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets = new Set<Socket>()
      const silent = createServer((socket) => void sockets.add(socket.on("error", () => {})))
      await new Promise<void>((done) => silent.listen(0, "127.0.0.1", done))
      return { silent, sockets }
    }),
    ({ silent, sockets }) =>
      Effect.sync(() => {
        silent.close()
        for (const socket of sockets) socket.destroy()
      })
  ),
  ({ silent }) => (silent.address() as AddressInfo).port
)

it.live.skipIf("Deno" in globalThis)(
  "a database that accepts and never answers: start says so and serves its port, and a signal ends start with 0 and commands with 130 and 143",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const [silent, port] = [yield* silentPort, yield* freePort]
        const environment = { MILLRACE_DATABASE_URL: `postgres://me:secret@127.0.0.1:${silent}/some` }
        const one = yield* Cli.start(environment, "start", ...config, "--port", String(port))
        const status = yield* Cli.start(environment, "status")
        const sql = yield* Cli.start(environment, "sql", "select 1")
        yield* one.said(/connecting to PostgreSQL at 127\.0\.0\.1:\d+\/some; .* \(no answer for 2 s\)/)
        const { body, status: code } = yield* readiness(port)
        assert.strictEqual(code, 503)
        assert.match(body.waiting_for ?? "", /^no answer yet; connecting to PostgreSQL at 127\.0\.0\.1/)
        assert.match((yield* got(port, "/status")).text, /"healthy":false,"reason":".*no answer yet/)
        assert.include((yield* got(port, "/metrics")).text, "millrace_status_up 0\n")
        one.process.kill("SIGTERM")
        status.process.kill("SIGTERM")
        sql.process.kill("SIGINT")
        for (const [running, expected] of [
          [one, 0],
          [status, 143],
          [sql, 130]
        ] as const)
          assert.strictEqual(yield* running.ended, expected, running.errors())
      })
    ),
  60_000
)

it.live(
  "start waits for a database that is away, says so in the log and at /readyz, and runs when it answers",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* databaseOn(root)
        const [away, port] = [yield* freePort, yield* freePort]
        const environment = { MILLRACE_DATABASE_URL: withPort(url, away) }
        const { errors, said } = yield* Cli.start(environment, "start", ...config, "--port", String(port), "--json")
        yield* said(/waiting for a service that is away: .*ECONNREFUSED/)
        const path = new URL(url).pathname
        assert.isTrue(
          errors().startsWith(
            `millrace: counting runs against PostgreSQL at 127.0.0.1:${away}${path}; the log in the same database; no Pulsar\n`
          ),
          errors()
        )
        assert.notInclude(errors(), new URL(url).password)
        const waiting = yield* readiness(port)
        assert.deepEqual([waiting.status, waiting.body.waiting_for?.includes("ECONNREFUSED")], [503, true])
        const [status, metrics] = [yield* got(port, "/status"), yield* got(port, "/metrics")]
        assert.strictEqual(status.status, 503)
        assert.match(status.text, /^\{"healthy":false,"reason":"waiting for a service that is away: .*ECONNREFUSED/)
        assert.deepEqual([metrics.status, metrics.text.includes("millrace_status_up 0\n")], [200, true])
        const sent = yield* Effect.promise(() =>
          fetch(`http://127.0.0.1:${port}/v1/events`, { method: "POST", body: "{}" })
        )
        assert.deepEqual([sent.status, sent.headers.get("retry-after")], [503, "1"])
        assert.strictEqual((yield* got(port, "/no-such-route")).status, 404)
        yield* forward(away, url)
        yield* said(/^\{"roles".*\}$/m)
        assert.strictEqual((yield* readiness(port)).status, 200)
      })
    ),
  60_000
)

it.live(
  "start does not wait for what needs a person: a wrong password, a database that does not exist",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* databaseOn(root)
        for (const [change, expected] of [
          [(wrong: URL) => (wrong.password = "wrong"), "check the user and the password"],
          [(wrong: URL) => (wrong.pathname = "/nothing"), "create the database (createdb)"]
        ] as const) {
          const wrong = new URL(url)
          change(wrong)
          const { code, errors } = yield* Cli.run(
            { MILLRACE_DATABASE_URL: wrong.href },
            "start",
            ...config,
            "--port",
            "0"
          )
          assert.strictEqual(code, 1)
          assert.include(errors, expected)
        }
      })
    ),
  60_000
)

it.live("a misspelled variable ends every command before it opens anything", () =>
  Effect.gen(function* () {
    for (const args of [["status"], ["start", ...config], ["sql", "select 1"]]) {
      const { code, errors } = yield* Cli.run({ MILLRACE_DATABSE_URL: "postgres://a@127.0.0.1:1/b" }, ...args)
      assert.strictEqual(code, 2)
      assert.strictEqual(
        errors,
        "millrace: the environment variable MILLRACE_DATABSE_URL is not one of Millrace's\n" +
          "try: did you mean MILLRACE_DATABASE_URL? If not, unset MILLRACE_DATABSE_URL\n"
      )
    }
  })
)
