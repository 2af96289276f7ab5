// The relay to Kafka under faults, on a broker of its own: zombies, lost requests and answers, dying brokers and backends. Every message is
// there once and in order, each time. Each protection was removed once to see its test fail.
import { afterAll, assert, beforeAll } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { failureOf } from "../../../../src/kafka/protocol/errors.ts"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { connect, query, type Sql } from "../../../../src/postgres/client/client.ts"
import * as PostgresOutbox from "../../../../src/postgres/relay/outbox.ts"
import * as Relay from "../../../../src/relay/relay.ts"
import type { RelayTarget } from "../../../../src/relay/target.ts"
import { kafka, type Service } from "../../../../stack/testing.ts"
import { positions, publish } from "../../../support/outbox.ts"
import { server } from "../../../support/postgres.ts"
import { randomOf, seed } from "../../../support/random.ts"
import {
  assertOnce,
  declare,
  intercept,
  lost,
  offsetsOf,
  requests,
  shipAll,
  testsOn,
  unclaimed
} from "../../../support/relay-kafka.ts"
import { owning } from "../../../support/stack.ts"

const suite = await owning("kafka")
const scope = Scope.makeUnsafe()
let services: { readonly root: string; readonly brokers: ReadonlyArray<string> } = { root: "", brokers: [] }
let broker: Service
const test = testsOn(() => services)
const partitions = 4

/** Commits segments to all streams, in order: so many to each, and then until `enough`. Returns the last sequence by stream. */
const publishing = Effect.fnUntraced(function* (
  sql: Sql,
  topics: ReadonlyArray<string>,
  rounds: number,
  pauseMs = 5,
  enough = () => true
) {
  const random = randomOf(seed)
  const seqs: Record<string, number> = {}
  for (let round = 0; round < rounds || !enough(); round++) {
    for (let partition = 0; partition < partitions; partition++) {
      const stream = `p/events/${partition}`
      const messages = random.int(1, 30)
      const targetPartition = random.chance(0.2) ? null : partition
      const firstSeq = (seqs[stream] ?? 0) + 1
      yield* publish(sql, { firstSeq, messages, partition, target: random.pick(topics), targetPartition })
      seqs[stream] = firstSeq + messages - 1
    }
    yield* Effect.sleep(pauseMs)
  }
  return seqs
})
/** Commits one more segment to each stream. */
const publishMore = Effect.fnUntraced(function* (sql: Sql, target: string, seqs: Readonly<Record<string, number>>) {
  const after: Record<string, number> = {}
  for (const [stream, seq] of Object.entries(seqs)) {
    const partition = Number(stream.split("/")[2])
    yield* publish(sql, { firstSeq: seq + 1, messages: 5, partition, target })
    after[stream] = seq + 5
  }
  return after
})
/** Waits until every stream's position in the database is at its end. */
const settled = (sql: Sql, seqs: Readonly<Record<string, number>>) =>
  Effect.gen(function* () {
    while (true) {
      // the backend of this query may be one that is terminated
      const found = yield* Effect.orElseSucceed(positions(sql), () => [])
      const at = new Map(found.map(({ seq, stream }) => [stream, seq]))
      if (Object.entries(seqs).every(([stream, seq]) => at.get(stream) === seq)) return
      yield* Effect.sleep(20)
    }
  })
const run = (target: RelayTarget) => Effect.forkScoped(Relay.run(target, { pollMs: 20 }))

suite("relay to Kafka, under faults", () => {
  beforeAll(async () => {
    const root = await Effect.runPromise(Scope.provide(server, scope))
    broker = await Effect.runPromise(Scope.provide(kafka(), scope))
    services = { root, brokers: broker.endpoints.MILLRACE_KAFKA_BROKERS!.split(",") }
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)), 60_000)

  for (const [name, apiKey] of Object.entries(requests).filter(([step]) => step !== "take")) {
    test(
      `a relay that was fenced while it waited to send '${name}' changes nothing`,
      Effect.fnUntraced(function* ({ log, name: target, outbox, records, relay, sql }) {
        yield* declare(log, target, partitions)
        for (let partition = 0; partition < partitions; partition++)
          yield* publish(sql, { firstSeq: 1, messages: 5, partition, target })
        const stopped = yield* Deferred.make<void>()
        let resume = () => {}
        const gate = new Promise<void>((resolve) => (resume = resolve))
        let first = true
        yield* intercept(async (key, send) => {
          if (key === apiKey && first) {
            first = false
            Deferred.doneUnsafe(stopped, Exit.void)
            await gate
          }
          return send()
        })
        const zombie = yield* relay({}, unclaimed(outbox))
        const round = yield* Effect.forkScoped(Effect.exit(zombie.publish))
        yield* Deferred.await(stopped)
        const successor = yield* relay({}, unclaimed(outbox))
        assert.strictEqual(yield* shipAll(successor), 5 * partitions)
        yield* publish(sql, { firstSeq: 6, messages: 5, target })
        assert.strictEqual(yield* shipAll(successor), 5)
        resume()
        const exit = yield* Fiber.join(round)
        assert.isTrue(Exit.isFailure(exit))
        assert.match(String(exit), /another relay took .* over/)
        assertOnce([yield* records(target)], { "p/events/0": 10, "p/events/1": 5, "p/events/2": 5, "p/events/3": 5 })
        // and it goes on as the newest owner
        yield* publish(sql, { firstSeq: 6, messages: 5, partition: 1, target })
        yield* Effect.sleep(100)
        while ((yield* shipAll(zombie)) < 5);
        assertOnce([yield* records(target)], { "p/events/0": 10, "p/events/1": 10, "p/events/2": 5, "p/events/3": 5 })
      })
    )
  }

  test(
    "two relays that both consider the lane theirs: 1..n, once, in order",
    Effect.fnUntraced(function* ({ log, name, outbox, records, relay, sql }) {
      const topics = [`${name}-a`, `${name}-b`]
      for (const topic of topics) yield* declare(log, topic, partitions)
      let fenced = 0
      yield* intercept((_, send) =>
        send().catch((cause: unknown) => {
          if (failureOf(cause).code === "INVALID_PRODUCER_EPOCH") fenced++
          throw cause
        })
      )
      for (let i = 0; i < 2; i++) yield* run(yield* relay({ segments: 3 }, unclaimed(outbox)))
      const seqs = yield* publishing(sql, topics, 40, 5, () => fenced > 5)
      yield* settled(sql, seqs)
      assertOnce(yield* Effect.forEach(topics, records), seqs)
    })
  )

  test(
    "requests that are lost before or after they reach the broker, ends of transactions included: 1..n, once, in order",
    Effect.fnUntraced(function* ({ log, name, options, records, relay, sql }) {
      const topics = [`${name}-a`, `${name}-b`]
      for (const topic of topics) yield* declare(log, topic, partitions)
      const random = randomOf(seed)
      const counts = { before: 0, after: 0, ends: 0 }
      let faults = true
      yield* intercept(async (key, send) => {
        const chance = key === requests.end ? 0.2 : 0.02
        if (faults && random.chance(chance)) {
          counts.before++
          throw lost()
        }
        const answer = await send()
        if (faults && random.chance(chance)) {
          counts.after++
          if (key === requests.end) counts.ends++
          throw lost()
        }
        return answer
      })
      yield* run(yield* relay({ segments: 3 }))
      const seqs = yield* publishing(sql, topics, 40, 10, () => counts.before > 10 && counts.ends > 4)
      faults = false
      yield* settled(sql, seqs)
      assertOnce(yield* Effect.forEach(topics, records), seqs)
      assert.deepStrictEqual(
        (yield* offsetsOf(options, `${name}/p`, "events")).map(({ seq }) => seq),
        Object.values(seqs)
      )
    })
  )

  test(
    "a change of the number of lanes takes over every earlier producer, also those that wait",
    Effect.fnUntraced(function* ({ log, name: target, outbox, records, relay, sql }) {
      yield* declare(log, target, partitions)
      for (let partition = 0; partition < partitions; partition++)
        yield* publish(sql, { firstSeq: 1, messages: 5, partition, target })
      const stopped = yield* Deferred.make<void>()
      let resume = () => {}
      const gate = new Promise<void>((resolve) => (resume = resolve))
      let waiting = 0
      yield* intercept(async (key, send) => {
        if (key === requests.addPartitions && waiting < 3) {
          if (++waiting === 3) Deferred.doneUnsafe(stopped, Exit.void)
          await gate
        }
        return send()
      })
      const zombie = yield* relay({ lanes: 3 }, unclaimed(outbox))
      const round = yield* Effect.forkScoped(Effect.exit(zombie.publish))
      yield* Deferred.await(stopped)
      // lanes that no longer exist have no producer that would fence the earlier ones
      const successor = yield* relay({ lanes: 1 }, unclaimed(outbox))
      assert.strictEqual(yield* shipAll(successor), 5 * partitions)
      resume()
      assert.isTrue(Exit.isFailure(yield* Fiber.join(round)))
      const once = Object.fromEntries(Array.from({ length: partitions }, (_, n) => [`p/events/${n}`, 5]))
      assertOnce([yield* records(target)], once)
      const [grouping] = yield* query(
        "grouping",
        () => sql`select lanes, generation, fenced from millrace.relay_grouping`
      )
      assert.deepStrictEqual(grouping, { lanes: 1, generation: 2, fenced: true })
      // more lanes again, by a relay that runs beside: both end up with the new number
      const third = yield* relay({ lanes: 2 })
      yield* run(successor)
      yield* run(third)
      const seqs = yield* publishMore(sql, target, once)
      yield* settled(sql, seqs)
      assertOnce([yield* records(target)], seqs)
    })
  )

  test(
    "a relay that opens its producer only after the number of lanes changed publishes nothing",
    Effect.fnUntraced(function* ({ log, name: target, outbox, records, relay, sql }) {
      yield* declare(log, target, partitions)
      const [taking, adding] = yield* Effect.all([Deferred.make<void>(), Deferred.make<void>()])
      const resume: Array<() => void> = []
      const gates = [0, 1].map((i) => new Promise<void>((resolve) => (resume[i] = resolve)))
      let step = 0
      yield* intercept(async (key, send) => {
        if (step === 0 && key === requests.take) {
          step = 1
          Deferred.doneUnsafe(taking, Exit.void)
          await gates[0]
        } else if (step === 2 && key === requests.addPartitions) {
          step = 3
          Deferred.doneUnsafe(adding, Exit.void)
          await gates[1]
        }
        return send()
      })
      // the ids of one lane were taken over before, so that only the lane itself waits
      yield* query(
        "group",
        () => sql`insert into millrace.relay_grouping (target, lanes, fenced) values ('kafka', 1, true)`
      )
      const zombie = yield* relay({ lanes: 1 }, unclaimed(outbox))
      const round = yield* Effect.forkScoped(Effect.exit(zombie.publish))
      yield* Deferred.await(taking)
      const successor = yield* relay({ lanes: 3 }, unclaimed(outbox))
      yield* shipAll(successor)
      for (let partition = 0; partition < partitions; partition++)
        yield* publish(sql, { firstSeq: 1, messages: 5, partition, target })
      step = 2
      resume[0]!()
      // it ends or, without the protection, is about to send
      yield* Effect.raceFirst(Fiber.await(round), Deferred.await(adding))
      const went = step
      step = 4
      while ((yield* positions(sql)).filter(({ seq }) => seq === 5).length < (went === 3 ? 2 : partitions))
        yield* Effect.exit(successor.publish)
      resume[1]!()
      assert.match(String(yield* Fiber.join(round)), /the number of lanes was changed/)
      const once = Object.fromEntries(Array.from({ length: partitions }, (_, n) => [`p/events/${n}`, 5]))
      assertOnce([yield* records(target)], once)
    })
  )

  test(
    "database backends that die: 1..n, once, in order",
    Effect.fnUntraced(function* ({ log, name, records, relay, sql, url }) {
      const topics = [`${name}-a`]
      yield* declare(log, topics[0]!, partitions)
      const own = yield* connect(url, { applicationName: "relay under test", max: 3 })
      yield* run(yield* relay({ segments: 3 }, PostgresOutbox.make(own)))
      let killed = 0
      const killer = yield* Effect.forkScoped(
        Effect.forever(
          Effect.gen(function* () {
            yield* Effect.sleep(60)
            const rows = yield* query(
              "terminate",
              () => sql`
              select pg_terminate_backend(pid) from pg_stat_activity
              where datname = current_database() and pid <> pg_backend_pid() and (
                application_name = 'millrace log session' or (application_name = 'relay under test' and random() < 0.5)) limit 2`
            )
            killed += rows.length
          })
        )
      )
      const seqs = yield* publishing(sql, topics, 40, 15, () => killed > 10)
      yield* Fiber.interrupt(killer)
      yield* settled(sql, seqs)
      assertOnce(yield* Effect.forEach(topics, records), seqs)
    })
  )

  test(
    "a broker that is killed and started again, and one that is restarted: 1..n, once, in order",
    Effect.fnUntraced(function* ({ log, name, records, relay, sql }) {
      const topics = [`${name}-a`, `${name}-b`]
      for (const topic of topics) yield* declare(log, topic, partitions)
      yield* run(yield* relay({ segments: 3 }))
      const published = yield* Effect.forkScoped(publishing(sql, topics, 80, 40))
      yield* Effect.sleep(1_000)
      yield* broker.kill
      yield* broker.start
      yield* Effect.sleep(1_000)
      yield* broker.restart
      const seqs = yield* Fiber.join(published)
      yield* settled(sql, seqs)
      assertOnce(yield* Effect.forEach(topics, records), seqs)
    }),
    240_000
  )
})
