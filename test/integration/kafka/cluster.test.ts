// Three brokers, whose leader is killed while the application runs: the others take over, and every message is there once.
//
// Three JVMs beside everything else need a machine of their own: MILLRACE_CLUSTER=1 runs it.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { kafkaCluster, type Service } from "../../../stack/testing.ts"
import { begin, ends, type Installed, installed, members, pay, receiptsOf, until } from "../../support/counting.ts"
import { asOperator } from "../../support/kafka-engine.ts"
import { recordsOf } from "../../support/oracle.ts"
import { server } from "../../support/postgres.ts"
import { owning } from "../../support/stack.ts"

const scope = Scope.makeUnsafe()
let postgres = ""
let nodes: ReadonlyArray<Service> = []
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** Leaders and replicas of the payments' partitions, asked of a running broker. */
const partitionsOf = ({ brokers, name }: Installed) =>
  asOperator(brokers.split(","), async (admin) => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [`${name}.payments`] })
    return topics[0]!.partitions
  })
/** Waits until every partition has three copies that are in sync. */
const inSync = Effect.fnUntraced(function* (app: Installed) {
  while ((yield* partitionsOf(app)).some(({ isr }) => isr.length < 3)) yield* Effect.sleep(100)
})
/** The node that leads most partitions. */
const leading = Effect.fnUntraced(function* (app: Installed) {
  const led = Map.groupBy(yield* partitionsOf(app), ({ leader }) => leader)
  const [first] = [...led].toSorted(([, a], [, b]) => b.length - a.length)
  return nodes[first![0] - 1]!
})

const suite =
  process.env["MILLRACE_CLUSTER"] === undefined
    ? (title: string, body: () => void) => void describe.skip(`${title} (skipped: set MILLRACE_CLUSTER=1)`, body)
    : await owning("kafka", "java", "maven")
suite("Three brokers", () => {
  beforeAll(async () => {
    postgres = await Effect.runPromise(Scope.provide(server, scope))
    nodes = await Effect.runPromise(Scope.provide(kafkaCluster({ heapMb: 256 }), scope))
  }, 180_000)

  it.live(
    "lose and duplicate nothing when the leader is killed repeatedly",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const app = yield* installed("leaders", nodes[0]!.endpoints.MILLRACE_KAFKA_BROKERS!, postgres, {
            MILLRACE_KAFKA_REQUEST_MS: "5000"
          })
          assert.deepStrictEqual(
            (yield* partitionsOf(app)).map(({ replicas }) => replicas.length),
            [3, 3, 3, 3, 3, 3]
          )
          const processes = [yield* begin(app.environment), yield* begin(app.environment)]
          yield* members(app, 2)
          const state = { sent: 0, stop: false }
          const sending = yield* Effect.forkChild(
            Effect.gen(function* () {
              while (!state.stop) {
                yield* pay(app, state.sent, state.sent + 20)
                state.sent += 20
                yield* Effect.sleep(10)
              }
            })
          )
          const more = Effect.fnUntraced(function* (n: number) {
            const enough = state.sent + n
            while (state.sent < enough && sending.pollUnsafe() === undefined) yield* Effect.sleep(20)
          })
          const began = Date.now()
          const say = (what: string) =>
            process.env["MILLRACE_VERBOSE"] === undefined
              ? undefined
              : process.stdout.write(`${Math.round((Date.now() - began) / 1000)} s: ${what}, ${state.sent} sent\n`)
          for (const round of [1, 2]) {
            yield* more(500)
            const node = yield* leading(app)
            yield* node.kill
            say(`round ${round} killed`)
            yield* more(500)
            say("went on")
            yield* node.start
            say("started")
            yield* inSync(app)
            say("in sync")
          }
          state.stop = true
          yield* Fiber.join(sending)
          const { sent } = state
          yield* until(app, sent)
          const [payments, receipts] = [yield* recordsOf(app.log, `${app.name}.payments`), yield* receiptsOf(app, sent)]
          assert.deepStrictEqual([payments.length, receipts.length, new Set(receipts).size], [sent, sent, sent])
          assert.isAbove(sent, 2_000)
          for (const running of processes) {
            assert.isNull(running.process.exitCode, running.errors())
            yield* ends(running)
          }
        })
      ),
    300_000
  )
})
