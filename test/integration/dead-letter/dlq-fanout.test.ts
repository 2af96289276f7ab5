// `millrace dlq` with dead letters of subscriptions and of the relay: on the fan-out on PostgreSQL, and over both transports to Pulsar.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { shared } from "../../../stack/testing.ts"
import type { Endpoints } from "../../../stack/service.ts"
import { Subscription, Topic } from "../../../src/index.ts"
import { connect, query } from "../../../src/postgres/client/client.ts"
import { sent, Topics, topicWith } from "../../contract/fanout-support.ts"
import * as Cli from "../../support/cli.ts"
import { onFanOut } from "../../support/fanout.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { environmentOf, fanOutOnPulsar, type TransportName } from "../../support/pulsar.ts"
import { publish, sequencesOf, shipAll, testsOn } from "../../support/relay-pulsar.ts"
import { needing, testOverTransports } from "../../support/stack.ts"
import { until } from "../../support/until.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

type Environment = Readonly<Record<string, string | undefined>>
const dlq = Effect.fnUntraced(function* (environment: Environment, ...args: ReadonlyArray<string>) {
  const { code, errors, output } = yield* Cli.run(environment, "dlq", ...args, "--json")
  assert.strictEqual(code, 0, errors)
  return JSON.parse(output) as never
})

interface Listed {
  readonly id: string
  readonly status: string
  readonly key: string
  readonly value: string
  readonly error: string
  readonly message: string
  readonly trace_id: string
  readonly event_id: string
  readonly attempts: number
  /** Only for a message that a relay parked. */
  readonly stream?: string
  readonly seq?: number
}
const seqOf = ({ value }: Listed) => (JSON.parse(value) as { readonly seq: number }).seq

/** Makes the journal forget that dead letters were retried. */
const unnoted = (environment: Environment, table: string, forgotten = "") =>
  Effect.scoped(
    Effect.gen(function* () {
      const sql = yield* connect(environment["MILLRACE_DATABASE_URL"]!, { max: 1 })
      yield* query("forget", () =>
        sql.unsafe(`update millrace.${table} set status = 'retrying'${forgotten} where status = 'retried'`)
      )
    })
  )

/** A subscription that fails to handle three of eight messages, and another one that handles all. */
const retried = Effect.fnUntraced(function* (environment: Environment) {
  const topics = yield* Topics
  const name = yield* topicWith(2)
  const failing = new Set([3, 5, 6])
  const got: Array<number> = []
  const seen: Array<number> = []
  const topic = Topic.records(name, { value: { seq: Schema.Int, key: Schema.String }, key: "key" })
  const mails = Subscription.make({ topic, name: "mails", type: "keyShared", from: "earliest", maxRedeliveries: 0 })
  const audit = Subscription.make({ topic, name: "audit", type: "failover", from: "earliest" })
  yield* Effect.forkScoped(
    Subscription.run(mails, ({ seq }) =>
      failing.has(seq) ? Effect.fail(new Error("no mail")) : Effect.sync(() => got.push(seq))
    )
  )
  yield* Effect.forkScoped(Subscription.run(audit, ({ seq }) => Effect.sync(() => seen.push(seq))))
  yield* topics.publish(name, sent(8, 1, 2, 2))
  yield* until(() => got.length === 5 && seen.length === 8)
  const list = (...args: ReadonlyArray<string>) =>
    Effect.map(
      dlq(environment, "list", "--subscription", "mails", "--topic", name, ...args),
      (found: ReadonlyArray<Listed>) => found.toSorted((a, b) => seqOf(a) - seqOf(b))
    )
  let letters = yield* list()
  while (letters.length < 3) letters = yield* list()
  assert.deepStrictEqual(letters.map(seqOf), [3, 5, 6])
  assert.deepInclude(letters[0], {
    status: "parked",
    key: "k1",
    error: "Redelivered",
    message: "redelivered 0 times, and failed: Error: no mail",
    attempts: 1,
    event_id: "e3",
    trace_id: "0af7651916cd43dd8448eb211c80319c"
  })
  const table = yield* Cli.run(environment, "dlq", "list", "--subscription", "mails", "--topic", name)
  assert.match(table.output, /│ Redelivered: Error: no mail +│/)
  failing.clear()
  assert.deepInclude(yield* dlq(environment, "show", letters[2]!.id), { id: letters[2]!.id, subscription: "mails" })
  assert.deepStrictEqual(yield* dlq(environment, "discard", letters[2]!.id), { discarded: 1 } as never)
  const again = ["retry", "--subscription", "mails", "--topic", name]
  assert.deepStrictEqual(yield* dlq(environment, ...again), { retried: 2 } as never)
  yield* until(() => got.length === 7)
  assert.deepStrictEqual(got.slice(5), [3, 5])
  assert.deepStrictEqual(yield* dlq(environment, ...again), { retried: 0 } as never)
  // as a kill leaves them between sending and noting it: the next retry finds them
  yield* unnoted(environment, "topic_letter")
  assert.deepStrictEqual(yield* dlq(environment, ...again), { retried: 2 } as never)
  const refused = yield* Cli.run(environment, "dlq", "retry", letters[0]!.id)
  assert.strictEqual(refused.code, 1)
  assert.match(refused.errors, /none of these dead letters is open and can be retried/)
  // what was retried was for the one alone
  yield* topics.publish(name, sent(10, 9, 2, 2))
  yield* until(() => seen.includes(9) && seen.includes(10) && got.length >= 9)
  assert.lengthOf(seen, 10)
  assert.deepStrictEqual(
    got.toSorted((a, b) => a - b),
    [1, 2, 3, 4, 5, 7, 8, 9, 10]
  )
  const decided = yield* list("--status", "retried,discarded")
  assert.deepStrictEqual(
    decided.map(({ status }) => status),
    ["retried", "retried", "discarded"]
  )
  assert.deepStrictEqual(yield* list(), [])
})

/** Two subscriptions of a topic that move the same message to one dead-letter topic. */
const sharing = Effect.fnUntraced(function* (environment: Environment) {
  const topics = yield* Topics
  const name = yield* topicWith(1)
  const got: Array<string> = []
  let fails = true
  const topic = Topic.records(name, { value: { seq: Schema.Int, key: Schema.String }, key: "key" })
  const settings = {
    topic,
    type: "exclusive",
    from: "earliest",
    maxRedeliveries: 0,
    deadLetterTopic: `${name}.dlq`
  } as const
  for (const who of ["mails", "audit"])
    yield* Effect.forkScoped(
      Subscription.run(Subscription.make({ ...settings, name: who }), () =>
        fails ? Effect.fail(new Error("not now")) : Effect.sync(() => got.push(who))
      )
    )
  yield* topics.publish(name, sent(1, 1, 1, 1))
  let letters: ReadonlyArray<Listed> = []
  const list = dlq(environment, "list", "--topic", name) as Effect.Effect<ReadonlyArray<Listed>>
  while (letters.length < 2) letters = yield* list
  fails = false
  const { errors } = yield* Cli.run(environment, "dlq", "list", "--kind", "bridge")
  assert.match(errors, /neither Kafka nor Pulsar is configured\ntry: set MILLRACE_KAFKA_BROKERS/)
  assert.deepStrictEqual(yield* dlq(environment, "retry", letters[0]!.id), { retried: 1 } as never)
  assert.deepStrictEqual(yield* dlq(environment, "retry", "--topic", name), { retried: 1 } as never)
  yield* until(() => got.length === 2)
  assert.sameMembers(got, ["mails", "audit"])
  assert.deepStrictEqual(yield* list, [])
})

describe("dead letters of a subscription on PostgreSQL", () => {
  it.live(
    "of several subscriptions with one dead-letter topic are distinguished",
    () => onFanOut(root, ({ url }) => sharing({ MILLRACE_DATABASE_URL: url })),
    60_000
  )
  it.live(
    "are listed, shown, retried for that subscription only and in the order of keys, and discarded",
    () => onFanOut(root, ({ url }) => retried({ MILLRACE_DATABASE_URL: url })),
    120_000
  )
})

const suite = await needing("pulsar")
suite("dead letters on Pulsar", () => {
  let endpoints: Endpoints = {}
  beforeAll(async () => {
    endpoints = await Effect.runPromise(Scope.provide(shared("pulsar"), scope))
  }, 180_000)

  testOverTransports(
    "of a subscription are listed, shown, retried for that subscription only and in the order of keys, and discarded: %s",
    (transport) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { url } = yield* databaseOn(root)
          const environment = { MILLRACE_DATABASE_URL: url, ...environmentOf(transport, endpoints, "contract") }
          yield* Effect.provide(retried(environment), fanOutOnPulsar(transport))
        })
      ),
    120_000
  )

  testsOn(
    "websocket",
    () => ({ root, endpoints }),
    "native"
  )(
    "of the relay stay parked while Pulsar rejects them, are sent once it accepts them, and do not confuse the relay",
    Effect.fnUntraced(function* ({ messages, relay, sql, url }) {
      yield* publish(sql, {
        firstSeq: 1,
        messages: 9,
        // more than the WebSocket interface takes, and less than the broker does
        record: (seq) => (seq === 4 ? { value: JSON.stringify({ seq, text: "x".repeat(2_000_000) }) } : {})
      })
      yield* Effect.scoped(Effect.flatMap(relay(), shipAll))
      const by = (transport: TransportName) =>
        Object.assign(environmentOf(transport, endpoints, "alerts"), { MILLRACE_DATABASE_URL: url })
      const [webSocket, native] = [by("websocket"), by("native")]
      const status = JSON.parse((yield* Cli.run(webSocket, "status", "--json")).output) as object
      assert.deepInclude(status, { parked_messages: 1 })
      const [letter] = yield* dlq(webSocket, "list", "--kind", "relay") as Effect.Effect<ReadonlyArray<Listed>>
      assert.deepInclude(letter, {
        id: "relay:1",
        key: "k4",
        error: "Refused",
        event_id: "e4",
        stream: "p/events/0",
        seq: 4
      })
      assert.match(letter!.message, /make it smaller/)
      const refused = yield* Cli.run(webSocket, "dlq", "retry", "--kind", "relay", "--json")
      assert.strictEqual(refused.code, 4, refused.errors)
      assert.match(refused.errors, /relay:1 stays parked: .*make it smaller/)
      assert.deepInclude(JSON.parse(refused.output), { retried: 0 })
      assert.deepInclude(yield* dlq(webSocket, "show", "relay:1"), { status: "parked" })
      assert.deepStrictEqual(yield* dlq(native, "retry", "relay:1"), { retried: 1 } as never)
      yield* unnoted(native, "relay_parked")
      assert.deepStrictEqual(yield* dlq(native, "retry", "relay:1"), { retried: 1 } as never)
      // as versions did that noted no more
      yield* unnoted(native, "relay_parked", ", tries = default, sent_after = default")
      assert.deepStrictEqual(yield* dlq(native, "retry", "relay:1"), { retried: 1 } as never)
      const all = [1, 2, 3, 5, 6, 7, 8, 9, 4]
      assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), { "p/events/0": all })
      // a relay that reads all of the topic again
      yield* query("rewind", () => sql`update millrace.relay_topic set seq = 0, sent = 0, place = ''`)
      yield* publish(sql, { firstSeq: 10, messages: 2 })
      yield* Effect.flatMap(relay(), shipAll)
      assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), { "p/events/0": [...all, 10, 11] })
      assert.deepInclude(JSON.parse((yield* Cli.run(native, "status", "--json")).output), { parked_messages: 0 })
      // whose retry did not come to its end, and is not wanted any more
      yield* unnoted(native, "relay_parked")
      assert.deepStrictEqual(yield* dlq(native, "discard", "relay:1"), { discarded: 1 } as never)
    })
  )
})
