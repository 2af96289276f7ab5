// Runs `millrace bridge`, which mirrors topics between Kafka and Pulsar by rules. It needs no database and no application.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Bridge } from "../bridge/definition.ts"
import type { BridgeError } from "../bridge/errors.ts"
import { findTopics } from "../bridge/discovery.ts"
import { mirror as mirrorForever, mirrorOnce } from "../bridge/bridge.ts"
import type { UnavailableSide } from "../bridge/availability.ts"
import { outcomes, type StreamStatus } from "../bridge/status.ts"
import type { BridgeContext } from "../bridge/context.ts"
import * as Http from "../server/server.ts"
import { loadRules } from "../system/bridge-rules.ts"
import { print } from "./print.ts"
import { openBridge, prepareBridge } from "../system/open-bridge.ts"
import { whenReachable } from "../system/when-reachable.ts"

/** The command's flags. */
export interface BridgeFlags {
  readonly rules: string | undefined
  readonly once: boolean
  readonly dryRun: boolean
  readonly json: boolean
  /** The port of the health server; undefined: no server. */
  readonly port: number | undefined
}

const sum = (streams: ReadonlyArray<StreamStatus>) =>
  Object.fromEntries(outcomes.map((outcome) => [outcome, streams.reduce((total, one) => total + one[outcome], 0)]))
/** The counts of each rule, as JSON for programs. */
const report = ({ bridge, clusters, status }: BridgeContext) => ({
  bridge: bridge.name,
  ...clusters,
  rules: bridge.rules.map(({ from, name, to }) => {
    const streams = status.statuses.filter(({ rule }) => rule === name)
    const halted = streams.flatMap(({ halted, partition, source }) =>
      halted === undefined ? [] : [{ source, partition, reason: halted }]
    )
    const lag = streams.reduce((total, one) => total + (one.lag ?? 0), 0)
    return { name, from, to, streams: streams.length, ...sum(streams), lag, halted }
  })
})
/** The counts of each rule, for people: a line a rule. */
const textOf = (context: BridgeContext) =>
  report(context)
    .rules.map((rule) => {
      const counts = outcomes.map((outcome) => `${(rule as unknown as Record<string, number>)[outcome]} ${outcome}`)
      return `${rule.name}: ${counts.join(", ")}`
    })
    .join("\n")

/** Prints which topics each rule would mirror now. */
const printPlan = Effect.fnUntraced(function* (
  context: BridgeContext,
  json: boolean
): Effect.fn.Return<void, BridgeError> {
  const { bridge, clusters } = context
  const rules = []
  for (const rule of bridge.rules) {
    const topics = (yield* findTopics(context, rule)).map(({ partitions, topic }) => ({
      topic,
      partitions: partitions.length
    }))
    rules.push({ name: rule.name, from: rule.from, to: rule.to, topics })
  }
  if (json) yield* print(JSON.stringify({ bridge: bridge.name, ...clusters, rules }))
  for (const { from, name, to, topics } of json ? [] : rules) {
    yield* print(`${name}: ${from} → ${to}`)
    for (const { partitions, topic } of topics)
      yield* print(`  ${topic}, ${partitions} partition${partitions === 1 ? "" : "s"}`)
    if (topics.length === 0) yield* print("  no such topic exists yet; a running bridge mirrors one as soon as it does")
  }
})

/** Failures that last longer than this make the bridge unready, in milliseconds. Shorter ones are normal while a group redistributes its partitions. */
const toleratedMs = 10_000
/** Whether the bridge mirrors everything, and if not, why. */
const readiness = (context: BridgeContext) => {
  const { availability, status } = context
  const { rules } = report(context)
  const failing = status.failing.filter(({ since }) => Date.now() - since > toleratedMs)
  const away = availability.unavailable
  const ready = away.length === 0 && failing.length === 0 && rules.every(({ halted }) => halted.length === 0)
  return { ready, away, failing, rules }
}

const printStarted = ({ name, rules }: Bridge, json: boolean, url: string | undefined) => {
  const names = rules.map((rule) => rule.name)
  return print(
    json
      ? JSON.stringify({ bridge: name, rules: names, url: url ?? null })
      : `millrace bridge ${name}: ${names.join(", ")}${url === undefined ? "" : ` at ${url}`}`
  )
}
/** Mirrors until stopped. The health server answers from the start, also while the bridge waits for Kafka. */
const mirror = Effect.fnUntraced(function* (
  rules: Bridge,
  { json, port }: BridgeFlags
): Effect.fn.Return<never, unknown, Scope.Scope> {
  const prepared = yield* prepareBridge
  const state: { context?: BridgeContext; away: ReadonlyArray<UnavailableSide> } = { away: [] }
  const ready = Effect.sync(() =>
    state.context === undefined ? { ready: false, away: state.away } : readiness(state.context)
  )
  const server = port === undefined ? undefined : yield* Http.serveHealth({ port, ready })
  yield* printStarted(rules, json, server?.url)
  const since = Date.now()
  state.context = yield* whenReachable(openBridge(rules, prepared), (reason) => {
    state.away = [{ side: "kafka", reason, since }]
    return Effect.logWarning(`bridge: Kafka is unavailable: ${reason}; waiting until it answers`)
  })
  if (state.away.length > 0) yield* Effect.logInfo("bridge: Kafka answers; mirroring starts")
  return yield* mirrorForever(state.context)
})

/**
 * Mirrors until stopped; with `once` up to the ends that the topics have now; with `dryRun` prints what it would mirror. The latter two fail if
 * Kafka or Pulsar does not answer.
 */
export const bridge = Effect.fnUntraced(function* (flags: BridgeFlags): Effect.fn.Return<number, unknown, Scope.Scope> {
  const rules = yield* loadRules(flags.rules)
  if (!flags.dryRun && !flags.once) return yield* mirror(rules, flags)
  const context = yield* openBridge(rules, yield* prepareBridge)
  if (flags.dryRun) yield* printPlan(context, flags.json)
  else {
    yield* mirrorOnce(context)
    yield* print(flags.json ? JSON.stringify(report(context)) : textOf(context))
  }
  return 0
})
