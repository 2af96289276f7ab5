// `millrace bridge`: mirrors topics between Kafka and Pulsar by rules, until stopped or once. It needs no database and no application.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Bridge } from "../bridge/rules.ts"
import type { BridgeError } from "../bridge/errors.ts"
import type { PulsarSide } from "../bridge/pulsar-side.ts"
import { find, join, once, run } from "../bridge/bridge.ts"
import type { UnavailableSide } from "../bridge/availability.ts"
import { outcomes, type StreamStatus } from "../bridge/status.ts"
import type { BridgeContext } from "../bridge/stream.ts"
import * as KafkaBridge from "../kafka/bridge-end.ts"
import * as KafkaLog from "../kafka/log/log.ts"
import * as PulsarBridge from "../pulsar/bridge-end.ts"
import { type PulsarOptions, optionsFrom as pulsarOptionsFrom } from "../pulsar/client/options.ts"
import * as Http from "../server/server.ts"
import { load } from "../system/dead-letters/bridge-rules.ts"
import { CommandFailed } from "../system/command-failure.ts"

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
interface Given {
  readonly kafka: KafkaLog.Options
  readonly pulsar: PulsarOptions
}
const environment: Effect.Effect<Given, CommandFailed> = Effect.all({
  kafka: given("MILLRACE_KAFKA_BROKERS", KafkaLog.optionsFrom),
  pulsar: given("MILLRACE_PULSAR_URL", pulsarOptionsFrom)
})
/** Fails where Kafka cannot be reached: its cluster's name is part of what is written. Pulsar is reached when it is used. */
const connect = Effect.fnUntraced(function* (bridge: Bridge, kafka: KafkaLog.Options, pulsar: PulsarSide) {
  // for ever: who gives up and joins anew is waited for by the group, and the one that it was as well
  const log = yield* KafkaLog.make({ ...kafka, joinMs: Infinity })
  return yield* join(bridge, { log, kafka: KafkaBridge.make(kafka), pulsar })
})

/** How often a broker that is away is looked for when a bridge starts. */
const lookMs = 1_000
/** The same, but it waits for Kafka as long as that takes; `waiting` hears why, each time that it is another reason. */
const patiently = Effect.fnUntraced(function* (
  bridge: Bridge,
  kafka: KafkaLog.Options,
  pulsar: PulsarSide,
  waiting: (reason: string) => Effect.Effect<void>
) {
  const outer = yield* Effect.scope
  let told = ""
  while (true) {
    // what failed leaves nothing behind
    const scope = yield* Scope.fork(outer)
    const exit = yield* Effect.exit(Scope.provide(connect(bridge, kafka, pulsar), scope))
    if (Exit.isSuccess(exit)) return exit.value
    yield* Scope.close(scope, exit)
    const error = Cause.findErrorOption(exit.cause)
    if (Option.isNone(error) || !error.value.retryable) return yield* exit
    if (error.value.reason !== told) yield* waiting((told = error.value.reason))
    yield* Effect.sleep(lookMs)
  }
})

const print = (text: string) => Effect.sync(() => process.stdout.write(`${text}\n`))
const sum = (streams: ReadonlyArray<StreamStatus>) =>
  Object.fromEntries(outcomes.map((outcome) => [outcome, streams.reduce((total, one) => total + one[outcome], 0)]))
/** Figures by rule. */
const report = ({ board, bridge, clusters }: BridgeContext) => ({
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
const textOf = (joined: BridgeContext) =>
  report(joined)
    .rules.map((rule) => {
      const counts = outcomes.map((outcome) => `${(rule as unknown as Record<string, number>)[outcome]} ${outcome}`)
      return `${rule.name}: ${counts.join(", ")}`
    })
    .join("\n")

/** Says what every rule would mirror, and starts nothing. */
const plan = Effect.fnUntraced(function* (joined: BridgeContext, json: boolean): Effect.fn.Return<void, BridgeError> {
  const rules = []
  for (const rule of joined.bridge.rules) {
    const topics = (yield* find(joined, rule)).map(({ parts, topic }) => ({ topic, partitions: parts.length }))
    rules.push({ name: rule.name, from: rule.from, to: rule.to, topics })
  }
  if (json) yield* print(JSON.stringify({ bridge: joined.bridge.name, ...joined.clusters, rules }))
  for (const { from, name, to, topics } of json ? [] : rules) {
    yield* print(`${name}: ${from} → ${to}`)
    for (const { partitions, topic } of topics)
      yield* print(`  ${topic}, ${partitions} partition${partitions === 1 ? "" : "s"}`)
    if (topics.length === 0) yield* print("  no such topic now; it is looked for all the time")
  }
})
/** A failure that lasts so long is one that a probe is told of; shorter ones are those of a group that shares anew. */
const lastingMs = 10_000
/** Whether it does its work, and why not. */
const readiness = (joined: BridgeContext) => {
  const { board, presence } = joined
  const { rules } = report(joined)
  const failing = board.failing.filter(({ since }) => Date.now() - since > lastingMs)
  const { away } = presence
  const ready = away.length === 0 && failing.length === 0 && rules.every(({ halted }) => halted.length === 0)
  return { ready, away, failing, rules }
}

const started = (rules: Bridge, json: boolean, url: string | undefined) => {
  const names = rules.rules.map(({ name }) => name)
  return print(
    json
      ? JSON.stringify({ bridge: rules.name, rules: names, url: url ?? null })
      : `millrace bridge ${rules.name}: ${names.join(", ")}${url === undefined ? "" : ` at ${url}`}`
  )
}
/** Mirrors until stopped. Probes are answered from the beginning, and brokers that are away are waited for. */
const mirror = Effect.fnUntraced(function* (
  rules: Bridge,
  { json, port }: BridgeFlags
): Effect.fn.Return<never, unknown, Scope.Scope> {
  const { kafka, pulsar } = yield* environment
  // where its client cannot be loaded waiting is of no use
  const end = yield* PulsarBridge.make(pulsar)
  const state: { joined?: BridgeContext; away: ReadonlyArray<UnavailableSide> } = { away: [] }
  const ready = Effect.sync(() =>
    state.joined === undefined ? { ready: false, away: state.away } : readiness(state.joined)
  )
  const server = port === undefined ? undefined : yield* Http.serveHealth({ port, ready })
  yield* started(rules, json, server?.url)
  const since = Date.now()
  state.joined = yield* patiently(rules, kafka, end, (reason) => {
    state.away = [{ side: "kafka", reason, since }]
    return Effect.logWarning(`bridge: Kafka is away: ${reason}; waiting until it is there`)
  })
  if (state.away.length > 0) yield* Effect.logInfo("bridge: Kafka is there; beginning")
  return yield* run(state.joined)
})

/** Mirrors until stopped; with `once` what is there now; with `dryRun` nothing. These two fail where a broker is away. */
export const bridge = Effect.fnUntraced(function* (flags: BridgeFlags): Effect.fn.Return<number, unknown, Scope.Scope> {
  const rules = yield* load(flags.rules)
  if (!flags.dryRun && !flags.once) return yield* mirror(rules, flags)
  const { kafka, pulsar } = yield* environment
  const joined = yield* connect(rules, kafka, yield* PulsarBridge.make(pulsar))
  if (flags.dryRun) yield* plan(joined, flags.json)
  else {
    yield* once(joined)
    yield* print(flags.json ? JSON.stringify(report(joined)) : textOf(joined))
  }
  return 0
})
