// The relay to Pulsar while it is killed and stopped, its connections are cut and its broker dies: every message is there once, in order.
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { afterAll, assert, beforeAll, describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { freePorts } from "../../stack/ports.ts"
import { pulsar, type Service } from "../../stack/testing.ts"
import { query, type Sql } from "../../src/postgres/client.ts"
import * as PulsarRelay from "../../src/pulsar/relay.ts"
import * as Relay from "../../src/relay.ts"
import { type Proxy, proxy } from "../support/proxy.ts"
import { server } from "../support/postgres.ts"
import { transports } from "../support/pulsar.ts"
import { assertOnce, type Case, publish, rounds, testsOn } from "../support/relay-pulsar.ts"
import { owning } from "../support/stack.ts"

const suite = await owning("pulsar")
const scope = Scope.makeUnsafe()
let root = ""
let service: Service | undefined
const proxies: Array<Proxy> = []
const cut = () => proxies.reduce((sum, one) => sum + one.cut(), 0)

/** A broker that clients reach by proxies only, whatever it tells them of itself. */
const start = Effect.gen(function* () {
  root = yield* server
  const [broker, web] = [yield* proxy, yield* proxy]
  proxies.push(broker, web)
  const [inner = 0, outer = 0] = yield* Effect.promise(() => freePorts(2))
  broker.to(outer)
  service = yield* pulsar({
    properties: {
      brokerServicePort: String(inner),
      internalListenerName: "internal",
      advertisedListeners: `internal:pulsar://127.0.0.1:${inner},outer:pulsar://127.0.0.1:${broker.port}`,
      bindAddresses: `outer:pulsar://127.0.0.1:${outer}`,
      // a socket of a process that stands still is let go after two of these
      webSocketPingDurationSeconds: "2"
    }
  })
  web.to(Number(new URL(service.endpoints.MILLRACE_PULSAR_ADMIN_URL ?? "").port))
})

const child = fileURLToPath(new URL("../support/relay-pulsar-child.ts", import.meta.url))
/** A relay of its own process. Ended, whatever it does, with the scope. */
const relayProcess = ({ name, options, url }: Case) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const given = JSON.stringify({ url, options, prefix: name })
      const made = spawn(process.execPath, [child, given], { stdio: ["ignore", "pipe", "inherit"] })
      await once(made.stdout, "data")
      return made
    }),
    (made) => Effect.promise(() => kill(made))
  )
const kill = async (made: ChildProcess) => {
  if (made.exitCode !== null || made.signalCode !== null) return
  const ended = once(made, "exit")
  made.kill("SIGKILL")
  await ended
}
const streams = [0, 1, 2]
/** Commits of 20 messages on three streams, one after the other. */
const commits = (sql: Sql, from: number, count: number) =>
  Effect.forEach(
    Array.from({ length: count }, (_, i) => from + i),
    (i) => Effect.forEach(streams, (partition) => publish(sql, { partition, firstSeq: 1 + i * 20, messages: 20 })),
    { discard: true }
  )
const expected = (count: number) =>
  Object.fromEntries(streams.map((partition) => [`p/events/${partition}`, count * 20]))
/** How many messages are written down as shipped. */
const shipped = (sql: Sql) =>
  Effect.map(
    query(
      "shipped",
      () => sql<Array<{ n: number }>>`select coalesce(sum(seq), 0)::int8 as n from millrace.relay_position`
    ),
    ([row]) => row!.n
  )
const until = Effect.fnUntraced(function* (sql: Sql, n: number) {
  while ((yield* shipped(sql)) < n) yield* Effect.sleep(20)
})
const lanes = (sql: Sql) =>
  query(
    "end the relay's session",
    () => sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid in (select pid from pg_locks where locktype = 'advisory')`
  )

suite("the relay to Pulsar, under faults", () => {
  beforeAll(() => Effect.runPromise(Scope.provide(start, scope)), 240_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  describe.each(transports)("%s", (transport) => {
    const endpoints = () => ({
      MILLRACE_PULSAR_URL: `pulsar://127.0.0.1:${proxies[0]!.port}`,
      MILLRACE_PULSAR_ADMIN_URL: `http://127.0.0.1:${proxies[1]!.port}`
    })
    const test = testsOn(transport, () => ({ root, endpoints: endpoints() }))

    test(
      "a relay that is killed mid-publish, again and again",
      Effect.fnUntraced(function* (one: Case) {
        const cycles = 8
        for (let i = 0; i < cycles; i++) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const made = yield* relayProcess(one)
              yield* commits(one.sql, i * 10, 10)
              // somewhere in the middle of it
              yield* until(one.sql, (i * 10 + 1 + (i % 7)) * 60)
              yield* Effect.promise(() => kill(made))
            })
          )
        }
        const target = yield* one.relay()
        yield* rounds(target, (_, lag) => lag === 0)
        assertOnce(yield* one.messages("alerts"), expected(cycles * 10))
      }),
      300_000
    )

    test(
      "connections that are cut",
      Effect.fnUntraced(function* (one: Case) {
        const target = yield* one.relay()
        const running = yield* Effect.forkChild(Relay.run(target, { pollMs: 50 }))
        let cuts = 0
        for (let i = 0; i < 10; i++) {
          yield* commits(one.sql, i * 10, 10)
          cuts += cut()
        }
        yield* until(one.sql, 100 * 60)
        yield* Fiber.interrupt(running)
        assert.isAbove(cuts, 0)
        assertOnce(yield* one.messages("alerts"), expected(100))
      }),
      300_000
    )

    test(
      "a broker that is killed mid-publish",
      Effect.fnUntraced(function* (one: Case) {
        const target = yield* one.relay()
        const running = yield* Effect.forkChild(Relay.run(target, { pollMs: 50 }))
        for (let i = 0; i < 2; i++) {
          yield* commits(one.sql, i * 40, 40)
          yield* until(one.sql, (i * 40 + 5) * 60)
          yield* service!.kill
          yield* service!.start
        }
        yield* until(one.sql, 80 * 60)
        yield* Fiber.interrupt(running)
        assertOnce(yield* one.messages("alerts"), expected(80))
      }),
      300_000
    )

    test(
      "a relay that stands still while another one takes over, and then goes on",
      Effect.fnUntraced(function* (one: Case) {
        const zombie = yield* relayProcess(one)
        yield* commits(one.sql, 0, 40)
        yield* until(one.sql, 5 * 60)
        zombie.kill("SIGSTOP")
        // the database lets a session go that does not answer
        yield* lanes(one.sql)
        yield* commits(one.sql, 40, 20)
        const taken = yield* Effect.scoped(
          Effect.gen(function* () {
            const target = yield* PulsarRelay.make(one.options, one.outbox, { prefix: one.name })
            yield* rounds(target, (_, lag) => lag === 0)
            const found = yield* one.messages("alerts")
            zombie.kill("SIGCONT")
            yield* commits(one.sql, 60, 20)
            yield* rounds(target, (_, lag) => lag === 0)
            return found
          })
        )
        assertOnce(taken, expected(60))
        // with the other one gone, it has the streams again
        yield* commits(one.sql, 80, 20)
        yield* until(one.sql, 100 * 60)
        assertOnce(yield* one.messages("alerts"), expected(100))
      }),
      300_000
    )
  })
})
