// `millrace start` with one role each, as processes: what each serves for monitoring, and what the status says of those that are missing.
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { afterAll, beforeAll } from "vitest"
import * as Cli from "../../support/cli.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { TcpProxy } from "../../support/tcp-proxy.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
}, 120_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
const test = (name: string, body: () => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(body()), 120_000)

const config = ["--config", "test/support/counting.config.ts"]
/** Starts a process with some roles, and returns where it answers. */
const started = Effect.fnUntraced(function* (
  environment: Readonly<Record<string, string>>,
  roles: string,
  ...more: ReadonlyArray<string>
) {
  const running = yield* Cli.start(environment, "start", ...config, "--roles", roles, "--json", ...more)
  const line = yield* running.said(/^\{.*\}$/m)
  return { ...running, url: (JSON.parse(line) as { readonly url: string }).url }
})
const got = (url: string) =>
  Effect.promise(async () => {
    const response = await fetch(url)
    return { status: response.status, text: await response.text() }
  })
/** Waits until the response is as expected, and returns it. */
const until = Effect.fnUntraced(function* (url: string, done: (text: string, status: number) => boolean) {
  while (true) {
    const { status, text } = yield* got(url)
    if (done(text, status)) return text
    yield* Effect.sleep(50)
  }
}, Effect.timeout("60 seconds"))
const valueOf = (text: string, metric: RegExp) => {
  const values = text.split("\n").filter((line) => metric.test(line))
  return values.reduce((most, line) => Math.max(most, Number(line.slice(line.lastIndexOf(" ")))), -1)
}

test("every role serves its own health and the metrics of the system; what is missing is named, and a gateway is ready without it", () =>
  Effect.gen(function* () {
    const { url } = yield* databaseOn(root)
    const environment = { MILLRACE_DATABASE_URL: url, MILLRACE_HEALTH_MAX_AGE: "200 millis" }
    const gateway = yield* started(environment, "gateway", "--port", "0")
    const body = JSON.stringify({ type: "paid", id: "1", who: "ada", at: 1 })
    const headers = { "content-type": "application/json" }
    const sent = yield* Effect.promise(() => fetch(`${gateway.url}/v1/events`, { method: "POST", headers, body }))
    assert.strictEqual(sent.status, 202)

    // no projection runs: the gateway is ready, the system is not healthy, and the age moves without any commit
    const ready = yield* got(`${gateway.url}/readyz`)
    assert.deepEqual(JSON.parse(ready.text), { ready: true, roles: { gateway: { ready: true } } })
    const status = yield* until(`${gateway.url}/status`, (text, code) => code === 503 && text.includes("not_running"))
    assert.include(status, "no process runs it; 1 record of counting.payments waits")
    const oldest = /^millrace_projection_oldest_seconds/
    const first = valueOf((yield* got(`${gateway.url}/metrics`)).text, oldest)
    yield* until(`${gateway.url}/metrics`, (text) => valueOf(text, oldest) > first + 0.2)
    const cli = yield* Cli.run(environment, "status")
    assert.strictEqual(cli.code, 3)
    assert.include(
      cli.output,
      "problem: projection counting v1: no process runs it; 1 record of counting.payments waits"
    )
    assert.include(cli.output, "try: millrace start --roles projections\n")
    assert.match(cli.output, /^process \d+ on \S+: gateway, running$/m)

    // no --port: a free one, which is printed; it has no routes but those of monitoring
    const projections = yield* started(environment, "projections")
    const relayStatus = yield* until(`${projections.url}/status`, (text) => text.includes("relay to embedded"))
    assert.include(relayStatus, "no process runs it; 1 message waits")
    assert.include(relayStatus, "millrace start --roles relay")
    assert.match((yield* got(`${projections.url}/healthz`)).text, /^\{"status":"ok","instance":"[\da-f-]{36}"\}$/)
    yield* until(`${projections.url}/readyz`, (_, code) => code === 200)
    assert.strictEqual((yield* got(`${projections.url}/v1/topics`)).status, 404)
    const metrics = (yield* got(`${projections.url}/metrics`)).text
    assert.include(metrics, 'millrace_projection_commits_total{projection="counting_v1"} 1\n')
    assert.include(metrics, 'millrace_projection_failures_total{projection="counting_v1"} 0\n')

    // a port that is in use is a clear error, in a role that has no requests either
    const port = new URL(gateway.url).port
    const refused = yield* Cli.run(environment, "start", ...config, "--roles", "relay", "--port", port)
    assert.strictEqual(refused.code, 1)
    assert.include(refused.errors, `port ${port} on 127.0.0.1 is in use by another program`)
    // it is printed once, and before a database is created
    const data = join(mkdtempSync(join(tmpdir(), "millrace-port-")), "state")
    const developing = yield* Cli.run({}, "dev", ...config, "--data", data, "--port", port)
    assert.strictEqual(developing.code, 1)
    assert.strictEqual(
      developing.errors,
      `millrace: port ${port} on 127.0.0.1 is in use by another program\ntry: stop that program, or choose another port (--port N; 0 picks a free one)\n`
    )
    assert.isFalse(existsSync(data))
    rmSync(dirname(data), { recursive: true })

    const relay = yield* started(environment, "relay", "--port", "0")
    yield* until(`${relay.url}/metrics`, (text) =>
      text.includes('millrace_relay_messages_total{target="embedded"} 1\n')
    )
    yield* until(`${relay.url}/readyz`, (_, code) => code === 200)
    yield* until(`${gateway.url}/status`, (_, code) => code === 200)
    assert.strictEqual((yield* Cli.run(environment, "status")).code, 0)

    // a process that is killed is noticed by the next look after 20 seconds; one that is stopped, at once
    process.kill(relay.process.pid!, "SIGTERM")
    assert.strictEqual(yield* relay.ended, 0, relay.errors())
    const after = JSON.parse((yield* Cli.run(environment, "status", "--json")).output) as {
      readonly processes: ReadonlyArray<{ readonly roles: ReadonlyArray<string> }>
    }
    assert.deepEqual(after.processes.map(({ roles }) => roles.join()).toSorted(), ["gateway", "projections"])
  }))

test("a process whose database is away is not ready, says why and goes on answering, and is ready again once it is back", () =>
  Effect.gen(function* () {
    const { url } = yield* databaseOn(root)
    const port = Number(new URL(url).port)
    const proxy = yield* Effect.acquireRelease(
      Effect.promise(async () => {
        const made = new TcpProxy(port)
        await made.open()
        return made
      }),
      (made) => Effect.promise(() => made.close())
    )
    const through = new URL(url)
    through.port = `${proxy.port}`
    const projections = yield* started({ MILLRACE_DATABASE_URL: through.href }, "projections")
    yield* until(`${projections.url}/readyz`, (_, code) => code === 200)
    yield* until(`${projections.url}/metrics`, (text) => text.includes("millrace_status_up 1\n"))
    // nothing listens on port 1
    proxy.target = 1
    proxy.cut()
    const reason = yield* until(`${projections.url}/readyz`, (_, code) => code === 503)
    assert.match(reason, /database/)
    const metrics = yield* until(`${projections.url}/metrics`, (text) => text.includes("millrace_status_up 0\n"))
    assert.include(metrics, "millrace_projection_lag{", "what was known is still reported")
    assert.strictEqual((yield* got(`${projections.url}/healthz`)).status, 200)
    assert.strictEqual((yield* got(`${projections.url}/status`)).status, 503)
    proxy.target = port
    yield* until(`${projections.url}/readyz`, (_, code) => code === 200)
    yield* until(`${projections.url}/metrics`, (text) => text.includes("millrace_status_up 1\n"))
  }))
