// `millrace bridge`: mirrors topics between Kafka and Pulsar by rules, until stopped or once. It needs no database and no application.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Bridge } from "../bridge.ts"
import type { BridgeError } from "../bridge-ends.ts"
import { find, join, once, run } from "../bridge-run.ts"
import { outcomes, type StreamStatus } from "../bridge-state.ts"
import type { Joined } from "../bridge-stream.ts"
import * as KafkaBridge from "../kafka/bridge.ts"
import * as KafkaLog from "../kafka/log.ts"
import { Log } from "../log.ts"
import * as PulsarBridge from "../pulsar/bridge.ts"
import { optionsFrom as pulsarOptionsFrom } from "../pulsar/options.ts"
import * as Http from "../server/http.ts"
import { load } from "./bridge-rules.ts"
import { CommandFailed } from "./failure.ts"

/** What the command was asked for. */
export interface BridgeFlags {
  readonly rules: string | undefined
  readonly once: boolean
  readonly dryRun: boolean
  readonly json: boolean
  /** Undefined: no server. */
  readonly port: number | undefined
}

/** Reads options from the environment. */
const given = <A>(name: string, read: (env: NodeJS.ProcessEnv) => A | undefined): Effect.Effect<A, CommandFailed> =>
  Effect.try({
    try: () => read(process.env),
    catch: (cause) => new CommandFailed({ message: (cause as Error).message })
  }).pipe(
    Effect.flatMap((options) =>
      options === undefined
        ? Effect.fail(
            new CommandFailed({
              message: `${name} is not set`,
              try: "a bridge needs MILLRACE_KAFKA_BROKERS and MILLRACE_PULSAR_URL"
            })
          )
        : Effect.succeed(options)
    )
  )
const connect = Effect.fnUntraced(function* (bridge: Bridge) {
  const kafka = yield* given("MILLRACE_KAFKA_BROKERS", KafkaLog.optionsFrom)
  const pulsar = yield* given("MILLRACE_PULSAR_URL", pulsarOptionsFrom)
  const log = yield* KafkaLog.make(kafka)
  return yield* join(bridge, { log, kafka: KafkaBridge.make(kafka), pulsar: yield* PulsarBridge.make(pulsar) })
})

const print = (text: string) => Effect.sync(() => process.stdout.write(`${text}\n`))
const sum = (streams: ReadonlyArray<StreamStatus>) =>
  Object.fromEntries(outcomes.map((outcome) => [outcome, streams.reduce((total, one) => total + one[outcome], 0)]))
/** Figures by rule. */
const report = ({ board, bridge, clusters }: Joined) => ({
  bridge: bridge.name,
  ...clusters,
  rules: bridge.rules.map(({ from, name, to }) => {
    const streams = board.statuses.filter(({ rule }) => rule === name)
    const halted = streams.flatMap(({ halted, partition, source }) =>
      halted === undefined ? [] : [{ source, partition, reason: halted }]
    )
    const lag = streams.reduce((total, one) => total + (one.lag ?? 0), 0)
    return { name, from, to, streams: streams.length, ...sum(streams), lag, halted }
  })
})
const textOf = (joined: Joined) =>
  report(joined)
    .rules.map((rule) => {
      const counts = outcomes.map((outcome) => `${(rule as unknown as Record<string, number>)[outcome]} ${outcome}`)
      return `${rule.name}: ${counts.join(", ")}`
    })
    .join("\n")

/** Says what every rule would mirror, and starts nothing. */
const plan = Effect.fnUntraced(function* (joined: Joined, json: boolean): Effect.fn.Return<void, BridgeError> {
  const rules = []
  for (const rule of joined.bridge.rules) {
    const topics = (yield* find(joined, rule)).map(({ parts, topic }) => ({ topic, partitions: parts.length }))
    rules.push({ name: rule.name, from: rule.from, to: rule.to, topics })
  }
  if (json) yield* print(JSON.stringify({ bridge: joined.bridge.name, ...joined.clusters, rules }))
  for (const { from, name, to, topics } of json ? [] : rules) {
    yield* print(`${name}: ${from} → ${to}`)
    for (const { partitions, topic } of topics) yield* print(`  ${topic}, ${partitions} partitions`)
    if (topics.length === 0) yield* print("  no such topic now; it is looked for all the time")
  }
})
const serve = (joined: Joined, port: number) =>
  Http.serve({
    application: { name: joined.bridge.name, aggregates: [], projections: [], services: undefined, pulsar: undefined },
    port,
    roles: [],
    ready: Effect.sync(() => {
      const { rules } = report(joined)
      return { ready: rules.every(({ halted }) => halted.length === 0), rules }
    })
  }).pipe(Effect.provideService(Log, joined.log))

/** Mirrors until stopped; with `once` what is there now; with `dryRun` nothing. */
export const bridge = Effect.fnUntraced(function* (flags: BridgeFlags): Effect.fn.Return<number, unknown, Scope.Scope> {
  const rules = yield* load(flags.rules)
  const joined = yield* connect(rules)
  if (flags.dryRun) {
    yield* plan(joined, flags.json)
    return 0
  }
  if (flags.once) {
    yield* once(joined)
    yield* print(flags.json ? JSON.stringify(report(joined)) : textOf(joined))
    return 0
  }
  const server = flags.port === undefined ? undefined : yield* serve(joined, flags.port)
  const started = { bridge: rules.name, rules: rules.rules.map(({ name }) => name), url: server?.url ?? null }
  yield* print(
    flags.json
      ? JSON.stringify(started)
      : `millrace bridge ${rules.name}: ${started.rules.join(", ")}${server === undefined ? "" : ` at ${server.url}`}`
  )
  return yield* run(joined)
})
