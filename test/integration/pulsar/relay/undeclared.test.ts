// Messages for tenants that an application does not declare and Pulsar does not have: they fill the room of their stream, are parked, and others go on.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { query, type Sql } from "../../../../src/postgres/client/client.ts"
import * as Decisions from "../../../../src/postgres/store/dead-letter-decisions.ts"
import { Admin } from "../../../../src/pulsar/client/admin.ts"
import { PulsarFailure } from "../../../../src/pulsar/client/errors.ts"
import { makeSender } from "../../../../src/pulsar/dead-letters.ts"
import * as PulsarRelay from "../../../../src/pulsar/relay/relay.ts"
import type { TransportProducer } from "../../../../src/pulsar/client/transport.ts"
import type { RelayTarget, RelayRound } from "../../../../src/relay/target.ts"
import { resend } from "../../../../src/dead-letter/resend.ts"
import * as Cli from "../../../support/cli.ts"
import { positions } from "../../../support/outbox.ts"
import { environmentOf } from "../../../support/pulsar.ts"
import {
  type Case,
  makeTenant,
  publish,
  rounds,
  sequencesOf,
  servicesOfSuite,
  shipAll,
  testsOn,
  withProduce
} from "../../../support/relay-pulsar.ts"
import { needing, overTransportsConcurrently } from "../../../support/stack.ts"

const suite = await needing("pulsar")
const stream = "p/events/0"
const upTo = (last: number, of: (seq: number) => boolean = () => true) =>
  Array.from({ length: last }, (_, i) => i + 1).filter(of)
const isEven = (seq: number) => seq % 2 === 0
/** Room for few messages, and little is read at once. */
const narrow = { inFlight: 20, segments: 1 }

/** Commits of 20 messages, each for the tenant that its sequence says. */
const publishFor = (sql: Sql, first: number, commits: number, tenant: (seq: number) => string) =>
  Effect.forEach(upTo(commits), (n) =>
    publish(sql, { firstSeq: first + (n - 1) * 20, messages: 20, record: (seq) => ({ tenant: tenant(seq) }) })
  )
const parkedOf = (sql: Sql) =>
  query("parked", async () => [
    ...(await sql<Array<{ seq: number; reason: string }>>`
        select seq::int, reason from millrace.relay_parked where status = 'parked' order by id`)
  ])
/** Retries as `dlq retry --kind relay` does. Returns how many messages were sent. */
const retryAll = Effect.fnUntraced(function* ({ options, sql }: Case) {
  const sender = yield* makeSender(options)
  const filter = { statuses: ["parked"], limit: 1_000, oldestFirst: true }
  const deadLetters = yield* query("dead letters", () => Decisions.parked(sql, filter))
  const sent = yield* Effect.forEach(deadLetters, (deadLetter) =>
    resend(deadLetter, sender, Decisions.parkedJournal(sql, deadLetter.id, "test"))
  )
  return sent.filter(Boolean).length
}, Effect.scoped)
/** Runs rounds until the test's tenant has the expected messages. */
const until = Effect.fnUntraced(function* (
  { messages }: Case,
  target: RelayTarget,
  done: (sequences: ReadonlyArray<number>) => boolean
) {
  while (true) {
    yield* rounds(target, () => true)
    const found = sequencesOf(yield* messages("alerts"))[stream] ?? []
    if (done(found)) return found
    yield* Effect.sleep(20)
  }
})

/**
 * Publishes from a sequence number on, every second message for a tenant that does not exist and the others for the test's tenant, until all of the
 * latter arrived and of the former some are parked and some wait. Returns the last sequence number, and what is parked.
 */
const flood = Effect.fnUntraced(function* (own: Case, target: RelayTarget, first: number, other: string) {
  const tenant = (seq: number) => (isEven(seq) ? other : own.name)
  let last = first + 159
  yield* publishFor(own.sql, first, 8, tenant)
  while (true) {
    const odd = upTo(last, (seq) => !isEven(seq) && seq >= first)
    assert.deepStrictEqual(yield* until(own, target, ({ length }) => length >= odd.length), odd)
    // nothing is in flight any more
    yield* target.publish
    const parked = yield* parkedOf(own.sql)
    if (parked.length < Math.floor(last / 2)) return { last, parked, odd }
    yield* publish(own.sql, { firstSeq: last + 1, messages: 4, record: (seq) => ({ tenant: tenant(seq) }) })
    last += 4
  }
})

/** Runs rounds until `seen` returns true or the position moved, of 200 messages; then a few more. */
const stands = Effect.fnUntraced(function* (target: RelayTarget, seen: (shipment: RelayRound) => boolean) {
  const last = yield* rounds(target, (shipment, lag) => seen(shipment) || lag < 200)
  for (let i = 0; i < 3; i++) yield* target.publish
  return last
})

const missing = new PulsarFailure("missing", false, "Topic not found; create it first")
const away = new PulsarFailure("lost", true, "Pulsar does not answer")

suite("a message for a tenant that is not declared", () => {
  const services = servicesOfSuite()

  overTransportsConcurrently((transport) => {
    const test = testsOn(transport, services)

    test(
      "is parked if it would halt its stream, and arrives once: by itself if it waited, by a retry if it was parked",
      Effect.fnUntraced(function* (own: Case) {
        const { cluster, messages, name, relay, sql } = own
        const [late, slow] = [`${name}-late`, `${name}-slow`]
        // the position stays at the first message, for a tenant that is declared and does not exist yet
        yield* publish(sql, { firstSeq: 1, messages: 1, record: () => ({ tenant: slow }) })
        const options = { ...narrow, undeclared: (tenant: string) => tenant === late }
        const { last, odd, parked } = yield* Effect.scoped(
          Effect.flatMap(relay(options), (target) => flood(own, target, 2, late))
        )
        assert.deepStrictEqual(
          parked.map(({ seq }) => seq),
          upTo(parked.length * 2, isEven)
        )
        assert.isAtLeast(parked.length, 60)
        assert.match(
          parked[0]!.reason,
          new RegExp(
            `not found.*not declared: declare it, or run millrace pulsar apply --tenants ${late}. Then: millrace dlq retry --kind relay`
          )
        )
        assert.strictEqual((yield* positions(sql))[0]!.seq, 0)
        assert.strictEqual((yield* Effect.flip(retryAll(own)))._tag, "DeadLetterRejected")

        // another relay reads everything again from there, while the retries are sent
        yield* Effect.promise(() => makeTenant(cluster, late))
        const target = yield* relay(options)
        const waited = upTo(last, isEven).slice(parked.length)
        while ((yield* messages("alerts", late)).length < waited.length) yield* rounds(target, () => true)
        assert.strictEqual(yield* retryAll(own), parked.length)
        yield* Effect.promise(() => makeTenant(cluster, slow))
        yield* shipAll(target)
        const came = sequencesOf(yield* messages("alerts", late))[stream]!
        assert.deepStrictEqual(
          came.filter((seq) => seq > parked.length * 2),
          waited
        )
        assert.deepStrictEqual(
          came.toSorted((a, b) => a - b),
          upTo(last, isEven)
        )
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts"))[stream], odd)
        assert.strictEqual((yield* messages("alerts", slow)).length, 1)
        assert.deepStrictEqual(yield* parkedOf(sql), [])
      })
    )

    test(
      "is not parked if the topic may have it or it may be on its way",
      Effect.fnUntraced(function* (own: Case) {
        const { cluster, messages, name, outbox, sql } = own
        const options = { ...narrow, prefix: name, undeclared: () => true }
        yield* publishFor(sql, 1, 10, () => name)
        // messages arrive without an answer; then the topic does not exist any more
        let there = true
        const deaf = (producer: TransportProducer): TransportProducer => ({
          close: () => producer.close(),
          send: async (message) => {
            await producer.send(message)
            there = false
            throw away
          }
        })
        let asked = 0
        const flawed = withProduce(cluster, async (settings) => {
          if (there) return deaf(await cluster.transport.produce(settings))
          asked++
          throw missing
        })
        const gone = Effect.gen(function* () {
          const target = yield* PulsarRelay.fromCluster(flawed, outbox, options)
          const before = asked
          yield* stands(target, () => asked > before + 2)
          assert.deepStrictEqual(yield* parkedOf(sql), [])
        })
        // the relay that sent them, and another one that only knows that some relay was connected
        yield* Effect.scoped(gone)
        yield* Effect.scoped(gone)
        yield* shipAll(yield* PulsarRelay.fromCluster(cluster, outbox, options))
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), { [stream]: upTo(200) })
      })
    )

    test(
      "is not parked while no broker answers",
      Effect.fnUntraced(function* (own: Case) {
        const { cluster, messages, name, options: at, outbox, sql } = own
        const options = { ...narrow, prefix: name, undeclared: () => true }
        yield* publishFor(sql, 1, 10, () => name)
        const lost = { ...cluster, admin: new Admin({ ...at, adminUrl: "http://127.0.0.1:1" }) }
        const early = Effect.flatMap(PulsarRelay.fromCluster(lost, outbox, options), ({ publish: round }) => round)
        yield* Effect.scoped(early)
        // a halt that this process recorded is over when the next one finds another reason
        const halt = () => sql`update millrace.relay_position set halted = 'an earlier reason' returning 1`
        assert.isAbove((yield* query("halt", halt)).length, 0)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const target = yield* PulsarRelay.fromCluster(lost, outbox, options)
            let failures = 0
            const { halted, waiting = [] } = yield* stands(target, (shipment) => {
              failures += shipment.failures ?? 0
              return (shipment.waiting ?? []).length > 0
            })
            assert.deepStrictEqual(halted, [])
            assert.match(waiting[0]?.reason ?? "", /ECONNREFUSED.*Pulsar does not answer/)
            assert.isAbove(failures, 0)
            yield* rounds(target, () => true)
            const noted = yield* query("halts", () => sql`select from millrace.relay_position where halted is not null`)
            assert.lengthOf(noted, 0)
          })
        )
        let asked = 0
        const deaf = withProduce(cluster, () => {
          asked++
          return Promise.reject(away)
        })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const target = yield* PulsarRelay.fromCluster(deaf, outbox, options)
            yield* stands(target, () => asked > 3)
          })
        )
        assert.deepStrictEqual(yield* parkedOf(sql), [])
        yield* shipAll(yield* PulsarRelay.fromCluster(cluster, outbox, options))
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), { [stream]: upTo(200) })
      })
    )
  })
  const test = testsOn("websocket", services)
  const testWithNative = testsOn("websocket", services, "native")

  test(
    "halts its stream if it must wait",
    Effect.fnUntraced(function* (own: Case) {
      const { cluster, name, relay, sql } = own
      const late = `${name}-late`
      yield* publishFor(sql, 1, 8, (seq) => (isEven(seq) ? late : name))
      const target = yield* relay(narrow)
      yield* until(own, target, ({ length }) => length >= 20)
      const { halted } = yield* rounds(target, (shipment) => shipment.halted.length > 0)
      assert.match(
        halted[0]!.reason,
        /not found; create it first: millrace pulsar apply, with --tenants TENANT if the application does not declare the tenant$/
      )
      for (let i = 0; i < 20; i++) yield* target.publish
      assert.isBelow((yield* until(own, target, () => true)).length, 50)
      assert.deepStrictEqual(yield* parkedOf(sql), [])
      yield* Effect.promise(() => makeTenant(cluster, late))
      yield* shipAll(target)
      assert.deepStrictEqual(
        yield* until(own, target, () => true),
        upTo(160, (seq) => !isEven(seq))
      )
    })
  )

  testWithNative(
    "goes to the partition of its key, however many the topic has once it is created",
    Effect.fnUntraced(function* (own: Case) {
      const { cluster, messages, name, relay, url } = own
      const late = `${name}-late`
      const options = { ...narrow, undeclared: (tenant: string) => tenant === late }
      const { last, parked } = yield* Effect.scoped(
        Effect.flatMap(relay(options), (target) => flood(own, target, 1, late))
      )
      const environment = { ...environmentOf("native", services().endpoints, "alerts"), MILLRACE_DATABASE_URL: url }
      const retry = Cli.run(environment, "dlq", "retry", "--kind", "relay", "--json")
      const refused = yield* retry
      assert.strictEqual(refused.code, 4, refused.errors)
      assert.match(refused.errors, /relay:1 and \d+ more stay parked: .*create it first/)
      yield* Effect.promise(() => makeTenant(cluster, late))
      yield* Effect.promise(() => cluster.admin!.call("PUT", `persistent/${late}/alerts/alerts/partitions`, 3))
      yield* Effect.flatMap(relay(options), shipAll)
      const done = yield* retry
      assert.deepStrictEqual([done.code, JSON.parse(done.output)], [0, { retried: parked.length }], done.errors)
      const byPartition = yield* Effect.forEach([0, 1, 2], (n) => messages(`alerts-partition-${n}`, late))
      const seqs = byPartition.flat().map(({ properties }) => Number(properties["millrace-seq"]))
      assert.deepStrictEqual(
        seqs.toSorted((a, b) => a - b),
        upTo(last, isEven)
      )
      const keys = byPartition.map((part) => new Set(part.map(({ key }) => key)))
      assert.strictEqual(keys[0]!.size + keys[1]!.size + keys[2]!.size, 7)
    })
  )
})
