// Opens the relays, which publish what projections commit: to where the log is, and to Pulsar if MILLRACE_PULSAR_URL is set.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { KafkaOptions } from "../kafka/protocol/options.ts"
import { type Application, goesTo, topicsOf } from "../model/application.ts"
import { Tenancy } from "../model/tenancy.ts"
import type { Sql } from "../postgres/client/client.ts"
import * as PostgresOutbox from "../postgres/relay/outbox.ts"
import * as PostgresRelay from "../postgres/relay/to-log.ts"
import { defaults as pulsarDefaults, type PulsarOptions } from "../pulsar/client/options.ts"
import { type OngoingFailures, relaySubject } from "../monitor/ongoing-failures.ts"
import { supervise, type SupervisedRelay } from "../relay/supervised.ts"
import type { RelayError, RelayTarget } from "../relay/target.ts"
import { pulsarOptions } from "./environment.ts"
import type { Identity } from "./identity.ts"
import { measuredRelay } from "./measured.ts"
import type { OpenedLog } from "./open-log.ts"

/** The names of the targets that the environment configures, for a log. They are known without loading the targets' code. */
export const targetNames = Effect.fnUntraced(function* (on: OpenedLog["on"]) {
  const log = on === "Kafka" ? "kafka" : PostgresRelay.embedded
  return (yield* pulsarOptions) === undefined ? [log] : [log, "pulsar"]
})

/** The topics of an application that a target skips. The log on PostgreSQL takes all topics. */
export const skippedTopics = (application: Application.Any, target: string): ReadonlyArray<string> => {
  if (target !== "kafka" && target !== "pulsar") return []
  const accepts = goesTo(application, target)
  return topicsOf(application).flatMap(({ topic: { name }, writtenBy }) =>
    writtenBy.length > 0 && !accepts(name) ? [name] : []
  )
}

/**
 * The relay to each of `targetNames`. Each opens its target when it runs, and again after whatever ended it. Their names on brokers are the
 * identity's, because equal names on one cluster would fence each other.
 */
export const openRelays = Effect.fnUntraced(function* (
  application: Application.Any,
  sql: Sql,
  opened: OpenedLog,
  { relayPrefix }: Identity,
  failures: OngoingFailures
) {
  const pulsar = yield* pulsarOptions
  const outbox = PostgresOutbox.make(sql)
  const supervised = (name: string, open: Effect.Effect<RelayTarget, RelayError, Scope.Scope>): SupervisedRelay => {
    const ended = (reason: string, againMs: number) => failures.report(relaySubject(name), reason, againMs)
    return supervise(name, measuredRelay(name, open, failures), outbox.lag(name), { ended })
  }
  const toLog =
    opened.on === "Kafka"
      ? supervised("kafka", openKafkaRelay(application, sql, opened.kafka, relayPrefix))
      : supervised(PostgresRelay.embedded, PostgresRelay.make(sql, { appended: opened.grown }))
  return pulsar === undefined
    ? [toLog]
    : [toLog, supervised("pulsar", openPulsarRelay(application, sql, pulsar, relayPrefix))]
})

const openKafkaRelay = Effect.fnUntraced(function* (
  application: Application.Any,
  sql: Sql,
  options: KafkaOptions,
  prefix: string
): Effect.fn.Return<RelayTarget, RelayError, Scope.Scope> {
  const KafkaRelay = yield* Effect.promise(() => import("../kafka/relay/relay.ts"))
  const accepts = goesTo(application, "kafka")
  return yield* KafkaRelay.make(options, PostgresOutbox.make(sql), { prefix, accepts })
})

const openPulsarRelay = Effect.fnUntraced(function* (
  application: Application.Any,
  sql: Sql,
  options: PulsarOptions,
  prefix: string
) {
  const PulsarRelay = yield* Effect.promise(() => import("../pulsar/relay/relay.ts"))
  const { pulsar } = application
  // for a topic with tiers its tenancy chooses the topic of each value
  const tiered = new Map(pulsar?.topics.filter(({ tier }) => tier !== undefined).map((topic) => [topic.name, topic]))
  const topicFor = (name: string, value: string) => {
    const topic = tiered.get(name)
    return topic === undefined ? name : Tenancy.topicFor(topic, JSON.parse(value) as Readonly<Record<string, unknown>>)
  }
  const withNamespace = { ...(pulsar !== undefined && { namespace: pulsar.namespace }), ...options }
  // where records without a tenant go
  const ownTenant = withNamespace.tenant ?? pulsarDefaults.tenant
  return yield* PulsarRelay.make(withNamespace, PostgresOutbox.make(sql), {
    prefix,
    accepts: goesTo(application, "pulsar"),
    batched: pulsar?.topics.filter(({ batching }) => batching).flatMap(Tenancy.topicsOf) ?? [],
    partitions: new Map(
      pulsar?.topics.flatMap((topic) => Tenancy.topicsOf(topic).map((name) => [name, topic.partitions] as const))
    ),
    ...(tiered.size > 0 && { topicFor }),
    ...(pulsar !== undefined && {
      undeclared: (tenant: string) => tenant !== ownTenant && Tenancy.parks(pulsar, tenant)
    })
  })
})
