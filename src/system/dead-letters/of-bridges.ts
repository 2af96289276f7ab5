// Dead letters of bridges for `dlq`: the systems that the environment names, and the rules, as `millrace bridge` finds them. Loaded where it is used.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BridgeDeadLetter } from "../../bridge/dead-letter.ts"
import { readDeadLetters, errorTopics, BridgeDeadLetterSender, type Sources } from "../../bridge/dead-letter-retry.ts"
import { join } from "../../bridge/bridge.ts"
import * as KafkaBridge from "../../kafka/bridge-end.ts"
import * as KafkaLog from "../../kafka/log/log.ts"
import type { Sql } from "../../postgres/client/client.ts"
import * as PulsarBridge from "../../pulsar/bridge-end.ts"
import { defaults, optionsFrom as pulsarOptionsFrom } from "../../pulsar/client/options.ts"
import type { DeadLetterSender } from "../../dead-letter/resend.ts"
import { loadIfAny } from "./bridge-rules.ts"
import { CommandFailed } from "../command-failure.ts"
import type { Source } from "./source.ts"
import { bridgeLetters } from "./of-topics.ts"

const given = <A>(read: (env: NodeJS.ProcessEnv) => A | undefined): Effect.Effect<A | undefined, CommandFailed> =>
  Effect.try({
    try: () => read(process.env),
    catch: (cause) => new CommandFailed({ message: (cause as Error).message })
  })

/** The systems that are configured, connected until the scope closes. */
const openSources = Effect.gen(function* () {
  const [kafka, pulsar] = [yield* given(KafkaLog.optionsFrom), yield* given(pulsarOptionsFrom)]
  const { namespace = defaults.namespace, tenant = defaults.tenant } = pulsar ?? {}
  return {
    kafka: kafka && { log: yield* KafkaLog.make(kafka), end: KafkaBridge.make(kafka) },
    pulsar: pulsar && { end: yield* PulsarBridge.make(pulsar), tenant, namespace }
  } satisfies Sources
})

/**
 * Letters of bridges, from the topics of the rules; undefined where neither Kafka nor Pulsar is configured, which fails where they were `asked` for. Without rules they are from all topics that are
 * named so, and only where they were asked for: others may have bridges on the same systems. Who retries them needs rules, and both systems.
 */
export const open = Effect.fnUntraced(function* (
  sql: Sql,
  rules: string | undefined,
  asked: boolean
): Effect.fn.Return<Source | undefined, unknown, Scope.Scope> {
  const isConfigured = ["MILLRACE_KAFKA_BROKERS", "MILLRACE_PULSAR_URL"].some(
    (name) => (process.env[name] ?? "") !== ""
  )
  if (!isConfigured && !asked) return undefined
  if (!isConfigured)
    return yield* new CommandFailed({
      message: "there are no letters of bridges: neither Kafka nor Pulsar is configured",
      try: "set MILLRACE_KAFKA_BROKERS, MILLRACE_PULSAR_URL or both, as for millrace bridge"
    })
  const bridge = yield* Effect.mapError(loadIfAny(rules), (error) =>
    rules === undefined
      ? new CommandFailed({
          message: error.message,
          try: "mend it, or leave the letters of bridges out: --kind projection,subscription,relay"
        })
      : error
  )
  if (bridge === undefined && !asked) return undefined
  const sources = yield* openSources
  const { kafka, pulsar } = sources
  const sender: Effect.Effect<DeadLetterSender<BridgeDeadLetter, unknown>, unknown, Scope.Scope> = Effect.gen(
    function* () {
      if (bridge === undefined)
        return yield* new CommandFailed({
          message: "the bridge's rules say where a letter belongs, and there are none here",
          try: "--rules FILE, the file that millrace bridge is given"
        })
      if (kafka === undefined || pulsar === undefined) {
        const name = kafka === undefined ? "MILLRACE_KAFKA_BROKERS" : "MILLRACE_PULSAR_URL"
        return yield* new CommandFailed({ message: `a bridge's letters go to the other side: ${name} is not set` })
      }
      return new BridgeDeadLetterSender(yield* join(bridge, { log: kafka.log, kafka: kafka.end, pulsar: pulsar.end }))
    }
  )
  return bridgeLetters(sql, {
    names: errorTopics(sources, bridge),
    each: (topic, take) => readDeadLetters(sources, topic, take),
    sender
  })
})
