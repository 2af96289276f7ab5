// A running system, put together from its parts: a database, the log, the store of the projections, and the relays.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { EventStore } from "../aggregate/event-store.ts"
import { Log } from "../log/log.ts"
import type { TopicAdmin } from "../log/topic-plan.ts"
import { assertHistory } from "./aggregate-history.ts"
import { aggregatesOf, type Application, partitionsOf } from "../model/application.ts"
import { buildName } from "../model/build.ts"
import { Erasures } from "../model/erasures.ts"
import type { Projection } from "../model/projection.ts"
import { CurrentFailures } from "../monitor/ongoing-failures.ts"
import { migrate } from "../postgres/client/migrate.ts"
import * as PostgresEvents from "../postgres/events/events.ts"
import { storeSkipped } from "../postgres/relay/lag.ts"
import { timerChannel } from "../postgres/events/timers.ts"
import { makeNotifier } from "../postgres/relay/notify.ts"
import * as PostgresRelay from "../postgres/relay/to-log.ts"
import { createViews } from "../postgres/store/application-views.ts"
import { readBuilds } from "../postgres/store/builds.ts"
import { readProcesses } from "../postgres/store/processes.ts"
import { closeGates } from "../postgres/store/gate.ts"
import { noteLifecycles } from "../postgres/store/lifecycles.ts"
import { noteConfigured } from "../postgres/store/retire.ts"
import { LookupForgetting } from "../postgres/store/lookup-forgetting.ts"
import * as PostgresStore from "../postgres/store/store.ts"
import * as Relay from "../relay/relay.ts"
import { again, type SupervisedRelay } from "../relay/supervised.ts"
import { type BehaviourSampler, BehaviourSamplers } from "../runner/behaviour.ts"
import { FollowerPacing } from "../runner/pacing.ts"
import * as Runner from "../runner/runner.ts"
import { Store } from "../runner/store.ts"
import { runBuilds } from "./builds.ts"
import type { Database } from "./database.ts"
import { assertOwn, claimDatabase, type IdentityDecision } from "./identity.ts"
import { checkBehaviour, storeSamples } from "./behaviour.ts"
import { deploymentOf } from "./deployments.ts"
import { readChains } from "./chains.ts"
import { forgetIds } from "./forget-ids.ts"
import { moveLifecycles, moveOnce } from "./lifecycles.ts"
import { executeTimers } from "./timers.ts"
import type { Observed } from "./observed.ts"
import { announceErasures } from "./erasure.ts"
import { settleReleases, watchInlineCode } from "./inline-code.ts"
import { openEvents } from "./open-event-store.ts"
import { openLog, type OpenedLog } from "./open-log.ts"
import { beginRelayCounters, measuredStore } from "./measured.ts"
import { openRelays, skippedTopics, targetNames } from "./open-relays.ts"
import { Presence } from "./presence.ts"
import { assertLogMoved } from "./moved-log.ts"
import { makePacing } from "./rebuild-pacing.ts"
import { withServices } from "./services.ts"
import { ownTopics } from "./topic-ownership.ts"
import { assertReady, specsOf, startsOf } from "./topics.ts"

/** The parts of a system that are open. `targets` has the names of all relay targets, whichever process runs their relays. */
export interface System extends Observed {
  /** The database of the system. */
  readonly database: Database
  /** The application that it runs. */
  readonly application: Application.Any
  /** The store of the projections' rows, windows and positions. */
  readonly store: Store["Service"]
  /** The store of the aggregates' events. */
  readonly eventStore: EventStore["Service"]
  /** The builds of the projections when the system was opened. */
  readonly builds: ReadonlyArray<Projection.Any>
  /** The names of the projections' consumer groups. */
  readonly groups: Runner.GroupNames
  /** The relays that this process runs. */
  readonly relays: ReadonlyArray<SupervisedRelay>
  /** This process among those of the system. */
  readonly presence: Presence
  /** Which system keeps the log. */
  readonly on: OpenedLog["on"]
  /** Compares the log's topics with their declarations. */
  readonly topics: TopicAdmin
}

/** How to open a system. */
export interface OpenOptions {
  /** Whether this process runs the relays. Default true. */
  readonly relaysHere?: boolean
  /** What a person decided about whose database it is. */
  readonly identity?: IdentityDecision
  /** Whether topics that do not exist on Kafka are created. If not, opening fails with `TopicsNotReady`. Default false. */
  readonly makesTopics?: boolean
}
/** How often this process closes the gates that promotions have left open, in milliseconds. */
const closeGatesMs = 5_000
/** How often this process applies the retention of a log on PostgreSQL, in milliseconds. */
const cleanMs = 60_000

/**
 * Opens everything that an application needs: migrates the database, declares topics, prepares projections. Idempotent, and safe while other
 * processes do the same. Topics of a log on PostgreSQL are always created; for topics on Kafka see `makesTopics`.
 */
export const openSystem = Effect.fnUntraced(function* (
  application: Application.Any,
  database: Database,
  { identity: decision = {}, makesTopics = false, relaysHere = true }: OpenOptions = {}
) {
  const { sql } = database
  const aggregates = aggregatesOf(application).map(({ name, partitions }) => ({ name, partitions }))
  const opened = yield* openLog(Effect.succeed(sql), { cleanMs, aggregates: aggregates.map(({ name }) => name) })
  const { log, on, topics } = opened
  const targets = yield* targetNames(on)
  if (on === "Kafka" && !makesTopics) yield* assertReady(application, topics)
  // before the migration: another application's database stays as it is
  if (decision.adopt !== true) yield* assertOwn(application, sql)
  if (on === "Kafka") yield* assertLogMoved(application, sql, log)
  yield* migrate(sql)
  const usesBrokers = targets.some((target) => target !== PostgresRelay.embedded)
  const identity = yield* claimDatabase(application, sql, { ...decision, usesBrokers })
  const specs = specsOf(application, on)
  if (on === "PostgreSQL" || makesTopics) yield* log.declare(specs)
  if (opened.on === "Kafka" && (relaysHere || decision.adopt === true))
    yield* ownTopics(application, opened.kafka, identity, decision.adopt === true)
  for (const target of targets) yield* storeSkipped(sql, target, skippedTopics(application, target))
  const presence = new Presence()
  presence.declares = application.projections.map(({ projection }) => buildName(projection))
  yield* presence.announce(sql)
  const relays = relaysHere ? yield* openRelays(application, sql, opened, identity, presence.failures) : []
  const signal = () => {
    for (const target of relays) target.signal()
  }
  const published = relaysHere ? signal : makeNotifier(sql)
  const { eventStore, subjectKeys } = yield* openEvents(sql, { appended: opened.appended, application, published })
  yield* eventStore.declare(aggregates)
  yield* subjectKeys.assertReadable
  yield* assertHistory(application, log)
  // what a process that died while it erased has left
  if (aggregates.some(({ name }) => name === Erasures.name)) yield* announceErasures({ eventStore, sql })
  if (usesBrokers)
    yield* PostgresEvents.publish(
      sql,
      aggregates.map(({ name }) => name),
      targets
    )
  const store = measuredStore(
    PostgresStore.make(sql, { published, due: makeNotifier(sql, timerChannel), processId: presence.id, subjectKeys }),
    presence.failures
  )
  const starts = yield* startsOf(application, log)
  const partitions = partitionsOf(application)
  const builds = yield* store.prepare(
    application.projections.map(({ projection }) => projection),
    (name) => partitions.get(name) ?? 1,
    (name, partition) => starts.get(name)?.[partition] ?? 0
  )
  yield* createViews(sql, application.views)
  yield* noteLifecycles(sql, application.projections)
  if (aggregates.length > 0) yield* Effect.ignore(settleReleases(sql, presence))
  // a projection that has nothing to catch up with is inline before the first command
  yield* Effect.ignore(moveOnce(sql))
  yield* watchInlineCode(application, sql, presence)
  const configured = application.projections.map(({ projection }) => projection)
  const others = yield* readBuilds(sql)
  // a build beside which the configuration has another version is replaced, not removed: see `reportDeployments`
  const isReplaced = (text: string) =>
    others.some(({ name, number }) => text === `${name} v${number}` && configured.some((one) => one.name === name))
  const removed = (yield* noteConfigured(sql, configured)).filter((text) => !isReplaced(text))
  if (removed.length > 0)
    yield* Effect.logWarning(
      `the database has projections that the configuration does not have: ${removed.join(", ")}. Nothing processes them; put them back, or end them with millrace retire`
    )
  const groups = groupNames(on === "Kafka" ? identity : undefined)
  const around = { groups, on, presence, relays, targets, topics }
  return { application, builds, database, eventStore, log, store, ...around } satisfies System
})

/** How new builds are deployed beside live ones, and what to do next. `isLiveHere`: whether this process runs what readers see. */
export const readDeployments = ({ builds, database }: Pick<System, "builds" | "database">) =>
  Effect.gen(function* () {
    const here = (name: string) => builds.filter((build) => build.name === name).map(({ version }) => version)
    const processes = yield* readProcesses(database.sql)
    const stored = Map.groupBy(yield* readBuilds(database.sql), (build) => build.name)
    return [...stored].flatMap(([name, all]) => {
      const facts = { builds: all, processes, here: here(name), embeddedDir: database.embeddedDir }
      const found = here(name).length === 0 ? undefined : deploymentOf(facts)
      const isLiveHere = all.some(({ live, number }) => live && here(name).includes(number))
      return found === undefined ? [] : [{ ...found, isLiveHere }]
    })
  })
const reportDeployments = (system: System) =>
  Effect.gen(function* () {
    for (const { message, projection, try: next } of yield* readDeployments(system))
      yield* Effect.logInfo(`projection ${projection}: ${message}. Next: ${next}`)
  }).pipe(Effect.ignore)

/** The groups of a database's projections on Kafka; without an identity, those of a log in the database, which no other application uses. */
export const groupNames = (
  identity: { readonly application: string | null; readonly id: string; readonly epoch: number } | undefined
): Runner.GroupNames =>
  identity === undefined
    ? { prefix: "", epoch: 0 }
    : { prefix: `${identity.application}/${identity.id}/`, epoch: identity.epoch }

/** What a build is run with. */
export interface RunningParts extends Pick<System, "application" | "groups" | "log" | "presence" | "store"> {
  readonly database: Pick<Database, "sql">
}
/** Provides what the runners of projections need. */
const withRunning = (
  { application, database, log, presence, store }: RunningParts,
  run: Effect.Effect<void, unknown, unknown>
): Effect.Effect<void> =>
  withServices(
    application,
    run.pipe(
      Effect.provideService(Log, log),
      Effect.provideService(Store, store),
      Effect.provideService(CurrentFailures, presence.failures),
      Effect.provideService(FollowerPacing, makePacing(database.sql, log))
    )
  ) as Effect.Effect<void>

/** Compares handlers with the samples of their behaviour, and completes the samples. It holds nothing up, and ends where the database does not answer. */
const watchBehaviour = ({ builds, database: { sql } }: System, samplers: Map<Projection.Any, BehaviourSampler>) =>
  Effect.forEach(
    builds,
    (build) =>
      Effect.flatMap(checkBehaviour(sql, build), (sampler) => {
        if (sampler === undefined) return Effect.void
        samplers.set(build, sampler)
        return Effect.ensuring(
          storeSamples(sql, build, sampler),
          Effect.sync(() => samplers.delete(build))
        )
      }).pipe(Effect.ignore),
    { concurrency: "unbounded", discard: true }
  )
/** Deletes, once a minute, what no event of the log can see of lookups any more. What fails is tried again the next time. */
const forgetLookups = ({ application, database, log }: System): Effect.Effect<never> => {
  const lookups = application.projections.flatMap(({ projection }) => Object.values(projection.enrich))
  // an event of any age may need any version
  const kept = new Set(lookups.flatMap(({ asOf, topic }) => (asOf === "eventTime" ? [topic.name] : [])))
  const forgetting = new LookupForgetting(database.sql, log, kept)
  const once = forgetting.run.pipe(
    Effect.catch((error) => Effect.logWarning(`lookup values are not forgotten: ${error.message}`))
  )
  return Effect.forever(Effect.andThen(Effect.sleep(cleanMs), once))
}

/** Runs every build of the application's projections, until interrupted, also those that appear while it runs. */
export const runProjections = (system: System): Effect.Effect<void> => {
  const { application, builds, database, groups, presence } = system
  const lookupTables: Runner.LookupTables = new Map()
  const context = { application, builds, presence, sql: database.sql }
  const samplers = new Map<Projection.Any, BehaviourSampler>()
  const running = runBuilds(context, (build, chains) => Runner.run(build, lookupTables, chains, groups)).pipe(
    Effect.provideService(BehaviourSamplers, samplers)
  )
  const watched = Effect.andThen(Effect.forkScoped(watchBehaviour(system, samplers)), running)
  // what fails is tried again the next time; status shows a gate that stays open
  const closing = Effect.forever(Effect.andThen(Effect.sleep(closeGatesMs), Effect.ignore(closeGates(database.sql))))
  const all = Effect.raceAllFirst([
    Effect.scoped(watched),
    closing,
    forgetLookups(system),
    moveLifecycles(database.sql),
    executeTimers(system),
    forgetIds(application, database.sql, presence.failures)
  ])
  const run = Effect.andThen(reportDeployments(system), withRunning(system, all))
  return presence.during("projections", {}, run)
}

/** Runs one build, and no other one, until interrupted. */
export const runBuild = (system: RunningParts, build: Projection.Any): Effect.Effect<void> => {
  const running = Effect.flatMap(
    Effect.retry(readChains(system.application, system.database.sql), Schedule.spaced("1 second")),
    (chains) => Runner.run(build, new Map(), chains, system.groups)
  )
  return system.presence.during("projections", { projections: [buildName(build)] }, withRunning(system, running))
}

/** Runs the relays, and deletes from the outbox what every target has, until interrupted. Nothing that ends one of them ends another one. */
export const runRelay = ({ database, presence, relays, targets }: System) => {
  const names = relays.map(({ name }) => name)
  const collecting = "the deletion of published messages"
  const ended = (reason: string, againMs: number) => presence.failures.report(collecting, reason, againMs)
  const collect = again(collecting, Relay.collect(PostgresRelay.collect(database.sql, { targets })), { ended })
  const running = Effect.all([...relays.map(({ run }) => run), collect], { concurrency: "unbounded", discard: true })
  return presence.during("relay", { targets: names }, Effect.andThen(beginRelayCounters(names), running))
}
