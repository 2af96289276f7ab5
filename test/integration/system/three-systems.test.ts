// The reference application on Kafka, PostgreSQL and Pulsar at once: events come in over HTTP, alerts go out to two tenants that cannot read each other's.
import { fileURLToPath } from "node:url"
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { kafka, securePulsar } from "../../../stack/testing.ts"
import type { PulsarSecurity } from "../../../stack/pulsar-security.ts"
import type { Endpoints } from "../../../stack/service.ts"
import type { Message } from "../../../src/subscription/fanout.ts"
import type { Status } from "../../../src/system/status.ts"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import { withoutTimeMarks } from "../../../src/log/time-mark.ts"
import { traceIdOf } from "../../../src/log/envelope.ts"
import { type Log, UnknownTopic } from "../../../src/log/log.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import * as PulsarFanOut from "../../../src/pulsar/subscription/fanout.ts"
import * as Cli from "../../support/cli.ts"
import { recordsOf } from "../../support/oracle.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { optionsOf, type TransportName } from "../../support/pulsar.ts"
import { owning, testOverTransports } from "../../support/stack.ts"

const config = fileURLToPath(new URL("../../support/two-tenants.config.ts", import.meta.url))
const deadLetterTopic = "events.raw.v1.signals.dlq"
const tenants = ["acme", "globex"] as const
type Tenant = (typeof tenants)[number]

const start = Date.UTC(2013, 0, 1, 12)
const traceOf = (n: number) => `4bf92f3577b34da6a3ce929d0e0e${n.toString(16).padStart(4, "0")}`
/** An event that is sent with a trace of its own. */
interface Sent {
  readonly event_id: string
  readonly entity_id: string
  readonly tenant: Tenant
  readonly amount: number
  readonly occurred_at: number
  readonly trace: string
}
/** Three entities of each tenant, with three alerts each, among events that cause no alert. */
const sent = tenants.flatMap((tenant, t) =>
  Array.from({ length: 18 }, (_, i): Sent => {
    const n = 1 + t * 100 + i
    const entity_id = `${tenant}-${i % 3}`
    const event = { event_id: `${tenant}-e${i}`, entity_id, tenant, amount: i % 2 === 0 ? 1_000 + i : 10 }
    return { ...event, occurred_at: start + i * 1_000, trace: traceOf(n) }
  })
)
/** An event whose score is not finite, so that neither a row nor JSON can hold it. */
const poison: Sent = {
  event_id: "poison",
  entity_id: "heavy",
  tenant: "acme",
  amount: 1e300,
  occurred_at: start + 60_000,
  trace: traceOf(500)
}
const alertsOf = (tenant: Tenant) => sent.filter((event) => event.tenant === tenant && event.amount > 900)

/** What the tests use of the deployed system. */
interface Deployed {
  readonly sql: Sql
  readonly log: Log["Service"]
  readonly endpoints: Endpoints
  readonly security: PulsarSecurity
  readonly environment: Readonly<Record<string, string | undefined>>
  /** The URL of the gateway. */
  readonly url: string
}
const scope = Scope.makeUnsafe()
let deployed: Deployed

/** Starts the services, creates topics and tenants, and starts a process for each role. The relay signs in as the publisher. */
const deploy = Effect.gen(function* () {
  const root = yield* server
  const [node, { endpoints, security }] = yield* Effect.all([kafka(), securePulsar()], { concurrency: 2 })
  const { sql, url } = yield* databaseOn(root, 4)
  const brokers = node.endpoints.MILLRACE_KAFKA_BROKERS!
  const environment = { MILLRACE_KAFKA_BROKERS: brokers, MILLRACE_DATABASE_URL: url }
  const topics = yield* Cli.run(environment, "topics", "apply", "--config", config)
  assert.strictEqual(topics.code, 0, topics.errors)
  const admin = { MILLRACE_PULSAR_ADMIN_URL: endpoints.MILLRACE_PULSAR_ADMIN_URL }
  const asAdmin = { ...admin, MILLRACE_PULSAR_TOKEN: security.token("admin") }
  const applied = yield* Cli.run(asAdmin, "pulsar", "apply", "--config", config)
  assert.strictEqual(applied.code, 0, applied.errors)
  const { client, url: broker } = optionsOf("native", endpoints)
  const pulsar = { ...admin, MILLRACE_PULSAR_URL: broker, MILLRACE_PULSAR_CLIENT: client }
  const asRelay = { ...environment, ...pulsar, MILLRACE_PULSAR_TOKEN: security.token("millrace-relay") }
  const role = (of: Readonly<Record<string, string | undefined>>, ...roles: ReadonlyArray<string>) =>
    Effect.tap(Cli.start(of, "start", "--config", config, "--roles", ...roles), ({ said }) =>
      said(/^millrace two-tenants: .*$/m)
    )
  const gateway = yield* role(environment, "gateway,api", "--port", "0")
  yield* role({ ...environment, MILLRACE_ESCALATE_AFTER_MS: "1000" }, "projections")
  yield* role(asRelay, "relay")
  const log = yield* KafkaLog.make({ brokers: brokers.split(",") })
  const gatewayUrl = /http:\S+/.exec(gateway.output())![0]
  yield* post(gatewayUrl)
  deployed = { sql, log, endpoints, security, environment: { ...environment, ...pulsar }, url: gatewayUrl }
})

/** Sends a record of the lookup topic, then the events, each with its own trace. */
const post = (url: string) =>
  Effect.promise(async () => {
    const send = async (query: string, body: object, traceparent?: string) => {
      const headers = { "content-type": "application/json", ...(traceparent !== undefined && { traceparent }) }
      const response = await fetch(`${url}/v1/events${query}`, { method: "POST", headers, body: JSON.stringify(body) })
      assert.strictEqual(response.status, 202, await response.text())
    }
    const heavy = { entity_id: "heavy", risk_weight: 1e10, threshold: 150, segment: "none" }
    await send("?topic=features.entity.v1", heavy)
    for (const { trace, ...event } of [...sent, poison])
      await send("", { type: "transfer", ...event }, `00-${trace}-00f067aa0ba902b7-01`)
  })

/** The fan-out, signed in with a tenant's own role. */
const signedIn = (tenant: Tenant, transport: TransportName) => {
  const { endpoints, security } = deployed
  const options = { ...optionsOf(transport, endpoints), namespace: "alerts" }
  return PulsarFanOut.make({ ...options, tenant, token: security.token(tenant) })
}
/** The first messages of a topic, in the order in which they arrived. */
const received = Effect.fnUntraced(function* (tenant: Tenant, transport: TransportName, topic: string, count: number) {
  const fanOut = yield* signedIn(tenant, transport)
  const name = `all-${transport}`
  const consumer = yield* fanOut.subscribe({ topic, name, type: "exclusive", from: "earliest" })
  const found: Array<Message> = []
  while (found.length < count) found.push(...(yield* consumer.receive(100)))
  yield* consumer.acknowledge(found)
  return found
})
const byId = <A extends { readonly id: string | undefined }>(all: ReadonlyArray<A>) =>
  all.toSorted((a, b) => (a.id! < b.id! ? -1 : 1))

const suite = await owning("kafka", "pulsar", "native", "java", "maven", "openssl")
suite("the application on Kafka, PostgreSQL and Pulsar", () => {
  beforeAll(() => Effect.runPromise(Scope.provide(deploy, scope)), 300_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  testOverTransports(
    "gives each tenant its own alerts, in the order of each key, with the documented key, value and properties: %s",
    (transport) =>
      Effect.gen(function* () {
        for (const tenant of tenants) {
          const expected = alertsOf(tenant)
          const messages = yield* received(tenant, transport, "alerts.v1", expected.length)
          const said = messages.map(({ eventTime, key, properties, value }) => {
            const { event_id: id, trace_id } = properties
            assert.match(properties["millrace-stream"]!, /^signals\/events\.raw\.v1\/\d+$/)
            assert.match(properties["millrace-seq"]!, /^[1-9]\d*$/)
            return { id, key, eventTime, trace_id, value: JSON.parse(value) as unknown }
          })
          assert.deepStrictEqual(
            byId(said),
            byId(
              expected.map(({ amount: score, entity_id, event_id: id, occurred_at, trace }) => {
                const value = { alert_id: id, entity_id, score, threshold: 900, segment: "unknown", occurred_at }
                return { id, key: entity_id, eventTime: occurred_at, trace_id: trace, value }
              })
            )
          )
          for (const [key, some] of Map.groupBy(said, (one) => one.key)) {
            const times = some.map(({ eventTime }) => eventTime)
            assert.deepStrictEqual(
              times,
              times.toSorted((a, b) => a - b),
              key
            )
          }
        }
      }).pipe(Effect.scoped),
    60_000
  )

  testOverTransports(
    "does not let a tenant read the other tenant's topics: %s",
    (transport) =>
      Effect.gen(function* () {
        const fanOut = yield* signedIn("acme", transport)
        for (const topic of ["alerts.v1", "signals.scores.v1"]) {
          const theirs = { topic: `persistent://globex/alerts/${topic}`, name: "spy", type: "exclusive" } as const
          const refused = yield* Effect.flip(Effect.scoped(fanOut.subscribe({ ...theirs, from: "earliest" })))
          assert.match(refused.message, /[Aa]uthoriz|[Pp]ermission|401|403/)
        }
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "carries a trace from the gateway to rows, to Kafka and to Pulsar, and to the dead letter of an event that fails",
    () =>
      Effect.gen(function* () {
        const { log, sql } = deployed
        const expected = byId(tenants.flatMap(alertsOf).map(({ event_id: id, trace }) => ({ id, trace })))
        /** Repeats until all alerts are there: projections and relays may still be at work. */
        const all = <A, E>(look: Effect.Effect<ReadonlyArray<A>, E>) =>
          Effect.repeat(look, { until: (found) => found.length >= expected.length })
        const rows = yield* all(
          query(
            "alerts",
            () => sql<Array<{ id: string; trace: string }>>`select alert_id as id, trace_id as trace from alerts`
          )
        )
        assert.deepStrictEqual(byId(rows.map(({ id, trace }) => ({ id, trace }))), expected)
        const once = Effect.fnUntraced(function* <A, E>(look: Effect.Effect<ReadonlyArray<A>, E>) {
          return yield* Effect.repeat(look, { until: (found) => found.length > 0 })
        })
        const onKafka = yield* all(Effect.map(recordsOf(log, "alerts.v1"), withoutTimeMarks))
        assert.deepStrictEqual(
          byId(onKafka.map(({ eventId: id, traceparent }) => ({ id: id!, trace: traceIdOf(traceparent)! }))),
          expected
        )
        const [deadLetter] = yield* once(
          query("read the dead letter", () => sql`select id, error, key, trace_id, status from millrace.dead_letters`)
        )
        assert.deepInclude(deadLetter, { key: "heavy", trace_id: poison.trace, status: "parked" })
        const [record] = yield* once(recordsOf(log, deadLetterTopic))
        // the relay to Pulsar creates the topic with its first message
        const [message] = yield* Effect.retry(received("acme", "websocket", deadLetterTopic, 1), {
          schedule: Schedule.spaced("100 millis"),
          while: (error) => error instanceof UnknownTopic
        })
        for (const text of [record!.value!, message!.value]) {
          const said = JSON.parse(text) as Record<string, unknown>
          assert.deepInclude(said, {
            key: "heavy",
            trace_id: poison.trace,
            projection: "signals",
            error: deadLetter!["error"]
          })
        }
        assert.strictEqual(traceIdOf(record!.traceparent), poison.trace)
        const { event_id, trace_id } = message!.properties
        assert.deepStrictEqual([message!.key, event_id, trace_id], ["heavy", "poison", poison.trace])
      }).pipe(Effect.scoped)
  )

  it.live(
    "opens a case for each alert and escalates it, takes commands beside Kafka, and publishes the cases to Kafka and to their tenants on Pulsar",
    () =>
      Effect.gen(function* () {
        const { log, sql, url } = deployed
        const alerts = tenants.flatMap(alertsOf)
        const rowsOf = (status: string) =>
          query(
            "cases",
            () => sql<Array<{ case_id: string }>>`select case_id from cases where status = ${status} order by 1`
          )
        // every timer fired: nobody acknowledged a case within a second
        yield* Effect.repeat(rowsOf("escalated"), {
          schedule: Schedule.spaced("50 millis"),
          until: (rows) => rows.length === alerts.length
        })
        const command = (id: string, name: string, body: object) =>
          Effect.promise(async () => {
            const headers = {
              "content-type": "application/json",
              "idempotency-key": `${name}-${id}`,
              "millrace-tenant": "acme"
            }
            const path = `${url}/v1/aggregates/alert-case/${id}/commands/${name}`
            const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) })
            return { status: response.status, body: (await response.json()) as Record<string, unknown> }
          })
        const id = alertsOf("acme")[0]!.event_id
        const acknowledged = yield* command(id, "acknowledge", { at: start, by: "ann" })
        assert.deepStrictEqual(acknowledged.status, 200)
        assert.deepInclude(acknowledged.body, { version: 3, repeated: false })
        const again = yield* command(id, "acknowledge", { at: start, by: "ann" })
        assert.deepStrictEqual(again.body, { ...acknowledged.body, repeated: true })
        const rejected = yield* command(id, "open", { at: start, entity_id: "acme-0", score: 1 })
        assert.deepStrictEqual([rejected.status, rejected.body["title"]], [409, "CaseExists"])
        // written in the statement that appended the event
        assert.deepStrictEqual(
          (yield* rowsOf("acknowledged")).map(({ case_id }) => case_id),
          [id]
        )
        const expected = 2 * alerts.length + 1
        const onKafka = yield* Effect.repeat(recordsOf(log, "alert-case"), {
          schedule: Schedule.spaced("50 millis"),
          until: (records) => records.length >= expected
        })
        assert.strictEqual(new Set(onKafka.map(({ eventId }) => eventId)).size, expected)
        const typeOf = (value: string | null) => (JSON.parse(value!) as { readonly type: string }).type
        const streams = Map.groupBy(onKafka, ({ key }) => key)
        assert.deepStrictEqual([...streams.keys()].toSorted(), alerts.map(({ event_id }) => event_id).toSorted())
        for (const [key, records] of streams)
          assert.deepStrictEqual(
            records.map(({ headers, value }) => [headers["millrace-version"], typeOf(value)]),
            [["1", "case.opened"], ["2", "case.escalated"], ...(key === id ? [["3", "case.acknowledged"]] : [])]
          )
        // the alert's trace goes on in its case
        for (const { event_id, trace } of alerts)
          assert.strictEqual(traceIdOf(streams.get(event_id)![0]!.traceparent), trace)
        for (const tenant of tenants) {
          const own = onKafka.filter(({ tenant: of }) => of === tenant).map(({ eventId }) => eventId!)
          for (const transport of ["native", "websocket"] as const) {
            const messages = yield* Effect.scoped(received(tenant, transport, "alert-case", own.length))
            assert.deepStrictEqual(
              messages.map(({ properties }) => properties["event_id"]).toSorted(),
              own.toSorted(),
              `${tenant} ${transport}`
            )
          }
        }
      }),
    60_000
  )

  it.live(
    "is healthy with nothing behind according to status, and subscribe prints a tenant's messages only with its token",
    () =>
      Effect.gen(function* () {
        const { environment, security } = deployed
        let status: Cli.Ended
        let found: Status
        do {
          status = yield* Cli.run(environment, "status", "--json")
          found = JSON.parse(status.output) as Status
        } while (found.relays.some(({ lag }) => lag > 0))
        assert.strictEqual(status.code, 0, status.output)
        assert.deepStrictEqual(
          found.relays.map(({ halted, halted_streams, target }) => [target, halted, halted_streams]),
          [
            ["kafka", null, 0],
            ["pulsar", null, 0]
          ]
        )
        assert.deepStrictEqual([found.problems, found.notices], [[], []])
        assert.strictEqual(found.dead_letters, 1)
        const asAcme = { ...environment, MILLRACE_PULSAR_TOKEN: security.token("acme"), MILLRACE_PULSAR_TENANT: "acme" }
        const printed = yield* Cli.run(asAcme, "subscribe", "alerts.v1", "--from", "2013-01-01", "--max", "2", "--json")
        assert.strictEqual(printed.code, 0, printed.errors)
        for (const line of printed.output.trim().split("\n"))
          assert.match((JSON.parse(line) as { readonly key: string }).key, /^acme-/)
        const spying = yield* Cli.run(asAcme, "subscribe", "persistent://globex/alerts/alerts.v1", "--max", "1")
        assert.strictEqual(spying.code, 1)
        assert.strictEqual(spying.output, "")
      }),
    60_000
  )
})
