// The fan-out on PostgreSQL: durable subscriptions of the log's topics. Their state is in tables; the log is read through its port.
import { randomInt } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import {
  assertPositions,
  assertSettings,
  ConsumerBusy,
  defaults,
  FanOut,
  FanOutError,
  redeliveryDelay,
  type StartAt,
  type StartPosition,
  type SubscribeOptions
} from "../../subscription/fanout.ts"
import { Log, type OutOfRange, type ReadError, UnknownTopic } from "../../log/log.ts"
import { startAtToken } from "../../runner/start-at-token.ts"
import type { Sql } from "../client/client.ts"
import { query, type SqlError } from "../client/errors.ts"
import * as Cursors from "./cursors.ts"
import { fanOutQuery, PostgresConsumer, type ConsumerParts, type ConsumerSettings } from "./consumer.ts"
import { PartitionFeed } from "./prefetch.ts"
import { join, leave, type ConsumerMember, type SubscriptionLocks, unreserve } from "./locks.ts"
import * as Statement from "./leases-sql.ts"
import * as Session from "../client/session.ts"

/** Options of the fan-out on PostgreSQL. */
export interface PostgresFanOutOptions {
  /** How often it looks for expired leases and for consumers that died, in milliseconds. Default 1,000. */
  readonly sweepMs?: number
  /** The topics that a topic is derived from: tokens of these start subscriptions of it. Default: none. */
  readonly derivedFrom?: (topic: string) => Effect.Effect<ReadonlySet<string>, SqlError>
}
/** The channel of notifications: `<subscription>;<milliseconds until something is due>`. */
const channel = "millrace_fanout"

const settingsOf = (options: SubscribeOptions): ConsumerSettings => ({
  ...defaults,
  deadLetterTopic: `${options.topic}.${options.name}.dlq`,
  maxRedeliveryDelayMs: redeliveryDelay(options, 0),
  ...options
})

/** What the consumers of a process share. */
interface ProcessConsumers {
  readonly sql: Sql
  readonly log: Log["Service"]
  readonly locks: SubscriptionLocks
  readonly derivedFrom: NonNullable<PostgresFanOutOptions["derivedFrom"]>
  /** The consumers of this process, by subscription. */
  readonly consumers: Map<number, Set<PostgresConsumer>>
}
const due = ({ consumers }: ProcessConsumers, subscription: number, delayMs: number) => {
  for (const consumer of consumers.get(subscription) ?? []) consumer.due(delayMs)
}

const makeShared = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"],
  derivedFrom: ProcessConsumers["derivedFrom"]
): Effect.fn.Return<ProcessConsumers, never, Scope.Scope> {
  const consumers: ProcessConsumers["consumers"] = new Map()
  const released = Latch.makeUnsafe(false)
  const context = yield* Effect.context<never>()
  const report = Effect.runForkWith(context)
  let [isLost, isClosing] = [false, false]
  const look = () => {
    released.openUnsafe()
    for (const of of consumers.values()) {
      for (const consumer of of) {
        consumer.due(0)
        consumer.signal.openUnsafe()
      }
    }
  }
  const session = yield* Session.make(sql, channel, {
    notified: (payload) => {
      const [subscription, delayMs] = payload.split(";")
      released.openUnsafe()
      due(shared, Number(subscription), Number(delayMs))
    },
    ready: () => {
      if (isLost) report(Effect.logInfo("PostgreSQL answers again; messages are received again"))
      isLost = false
      look()
    },
    lost: () => {
      if (!isLost && !isClosing && consumers.size > 0) {
        isLost = true
        report(Effect.logWarning("the connection to PostgreSQL was lost; no message is received until it is back"))
      }
      look()
    }
  })
  // before the session is closed
  yield* Effect.addFinalizer(() => Effect.sync(() => (isClosing = true)))
  const shared: ProcessConsumers = {
    sql,
    log,
    derivedFrom,
    consumers,
    locks: { session, reserved: new Map(), released }
  }
  return shared
})

/** Returns messages of dead consumers and expired leases, and wakes consumers for which something is due. */
const sweep = Effect.fnUntraced(function* (shared: ProcessConsumers) {
  const subscriptions = [...shared.consumers.keys()]
  if (subscriptions.length === 0) return
  yield* query("sweep", () => Statement.sweep(shared.sql, subscriptions))
  const rows = yield* query("sweep", () => Statement.nextDue(shared.sql, subscriptions))
  for (const row of rows) due(shared, row.subscription_id, Math.max(row.due_ms, 0))
})

const topicOf = Effect.fnUntraced(function* (sql: Sql, topic: string) {
  const [row] = yield* fanOutQuery(
    "subscribe",
    () => sql<Array<{ topic_id: number; partitions: number }>>`
      select topic_id, partitions from millrace.log_topic where name = ${topic}`
  )
  if (row === undefined) return yield* new UnknownTopic({ topic, reason: "the topic does not exist" })
  return row
})

/** Joins a subscription until the scope closes. A failover consumer that finds another one joins later, when it receives. */
const joinSubscription = Effect.fnUntraced(function* (
  shared: ProcessConsumers,
  settings: ConsumerSettings,
  subscription: number,
  alone: boolean
) {
  const { locks } = shared
  const member: ConsumerMember = {
    consumer: randomInt(1, 2 ** 31 - 1),
    subscription,
    alone,
    joined: undefined,
    reserved: false
  }
  yield* Effect.acquireRelease(Effect.succeed(member), () =>
    Effect.andThen(
      leave(locks, member),
      Effect.sync(() => unreserve(locks, member))
    )
  )
  while (true) {
    yield* locks.session.opened
    const result = yield* Effect.mapError(
      join(locks, member),
      (error) =>
        new FanOutError({ operation: "subscribe", retryable: error.retryable, reason: error.reason, cause: error })
    )
    if (result !== "lost") return { member, result }
    yield* Effect.sleep(20)
  }
})

const isAlone = (type: string) => type === "exclusive" || type === "failover"

/** The start that a token means for a topic; any other as it is. */
const resolveStart = Effect.fnUntraced(function* (
  { derivedFrom, log }: ProcessConsumers,
  operation: "subscribe" | "seek",
  topic: string,
  at: StartAt
): Effect.fn.Return<StartPosition, FanOutError | UnknownTopic> {
  if (typeof at !== "object" || !("token" in at)) return at
  const positions = yield* derivedFrom(topic).pipe(
    Effect.flatMap((sources) => startAtToken(log, { token: at.token, topic, derivedFrom: sources, moveGone: true })),
    Effect.catchIf(
      (error) => error._tag !== "UnknownTopic",
      (error) => {
        const retryable = "retryable" in error ? error.retryable : error._tag === "OutOfRange"
        const reason = error._tag === "TokenRefused" ? `${error.message}. try: ${error.advice}` : error.message
        return Effect.fail(new FanOutError({ operation, retryable, reason, cause: error }))
      }
    )
  )
  return { places: positions.map((position, partition) => ({ partition, position })) }
})

/** Finds or creates the subscription, gives it the requested type, and joins it. */
const openMember = Effect.fnUntraced(function* (shared: ProcessConsumers, settings: ConsumerSettings, topicId: number) {
  const { sql } = shared
  const { from, name, topic, type } = settings
  const isToken = typeof from === "object" && "token" in from
  const find = Effect.gen(function* () {
    while (true) {
      // one that exists goes on where it was, whatever became of its token
      const [known] = isToken ? yield* fanOutQuery("subscribe", () => Cursors.find(sql, topicId, name)) : []
      if (known !== undefined) return known
      const start = yield* resolveStart(shared, "subscribe", topic, from)
      const [row] = yield* fanOutQuery("subscribe", () => Cursors.open(sql, topicId, name, type, start))
      // another process created it at the same moment, so neither part of the statement saw it
      if (row !== undefined) return row
    }
  })
  const found = yield* find
  if (found.type !== type) {
    // the subscription must have no consumer while its type changes
    const changed = yield* Effect.scoped(
      Effect.gen(function* () {
        const { result } = yield* joinSubscription(shared, settings, found.subscription_id, true)
        if (result === "joined")
          yield* fanOutQuery("subscribe", () => Cursors.setType(sql, found.subscription_id, type))
        return result === "joined"
      })
    )
    if (!changed) return yield* new ConsumerBusy({ topic, subscription: name, type: found.type })
  }
  const entered = yield* joinSubscription(shared, settings, found.subscription_id, isAlone(type))
  if (entered.result === "busy" && type !== "failover") {
    return yield* new ConsumerBusy({ topic, subscription: name, type: (yield* find).type })
  }
  return entered.member
})

const rereading = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(
  Schedule.setInputType<ReadError | SqlError>(),
  Schedule.while(({ input }) => "retryable" in input && input.retryable)
)

/** Fills a feed until the scope closes. A failure that does not go away becomes the consumer's. */
const follow = Effect.fnUntraced(function* (
  shared: ProcessConsumers,
  consumer: PostgresConsumer,
  feed: PartitionFeed,
  { name, topic }: ConsumerSettings,
  subscription: number
) {
  const { partition } = feed
  const skip = (error: OutOfRange): Effect.Effect<void, OutOfRange | SqlError> => {
    if (error.position > error.end) return Effect.fail(error)
    // retention deleted messages before they were delivered
    return Effect.gen(function* () {
      yield* Effect.logWarning(`subscription ${name}: ${error.message}; it continues at ${error.start}`)
      yield* query("skip deleted messages", () => Cursors.skipTo(shared.sql, subscription, partition, error.start))
      feed.forget(error.start)
    })
  }
  const reading: Effect.Effect<void, ReadError | SqlError> = feed
    .pump(shared.log, topic, () => consumer.signal.openUnsafe())
    .pipe(Effect.catchTag("OutOfRange", skip))
  yield* Effect.forever(reading).pipe(
    Effect.retry(rereading),
    Effect.catch((error) =>
      Effect.sync(() => {
        consumer.failure = new FanOutError({
          operation: "receive",
          retryable: false,
          reason: error.message,
          cause: error
        })
        consumer.signal.openUnsafe()
      })
    ),
    Effect.forkScoped
  )
})

const notifier = (shared: ProcessConsumers, subscription: number) =>
  Effect.fnUntraced(function* (delayMs: number) {
    due(shared, subscription, delayMs)
    yield* Effect.ignore(
      query("notify", () => shared.sql`select pg_notify(${channel}, ${`${subscription};${delayMs}`})`)
    )
  })

const subscribe = Effect.fnUntraced(function* (shared: ProcessConsumers, options: SubscribeOptions) {
  const { consumers, locks, log, sql } = shared
  yield* assertSettings(options)
  const settings = settingsOf(options)
  const { deadLetterTopic: name, topic } = settings
  const { partitions, topic_id: topicId } = yield* topicOf(sql, topic)
  yield* assertPositions("subscribe", topic, partitions, settings.from)
  const joined = yield* openMember(shared, settings, topicId)
  const { subscription } = joined
  yield* fanOutQuery("subscribe", () => Statement.sweep(sql, [subscription]))
  const cursors = yield* fanOutQuery("subscribe", () => Cursors.cursors(sql, subscription))
  const parts: ConsumerParts = {
    sql,
    log,
    locks,
    member: joined,
    settings,
    feeds: cursors.map(({ next, partition }) => new PartitionFeed(partition, next)),
    notify: notifier(shared, subscription),
    declareDeadLetters: topicOf(sql, name).pipe(
      Effect.catchTag("UnknownTopic", () =>
        log.declare([{ name, partitions, compacted: false, retentionMs: undefined }])
      ),
      Effect.mapError(
        ({ message, retryable }) => new FanOutError({ operation: "deadLetter", retryable, reason: message })
      )
    )
  }
  const consumer = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const made = new PostgresConsumer(parts)
      const others = consumers.get(subscription) ?? new Set()
      consumers.set(subscription, others.add(made))
      return made
    }),
    (made) =>
      Effect.suspend(() => {
        const others = consumers.get(subscription)
        others?.delete(made)
        if (others?.size === 0) consumers.delete(subscription)
        return made.close
      })
  )
  for (const feed of parts.feeds) yield* follow(shared, consumer, feed, settings, subscription)
  return consumer
})

/** Moves a subscription that has no consumer. */
const seek = Effect.fnUntraced(function* (shared: ProcessConsumers, options: SubscribeOptions, to: StartAt) {
  const { sql } = shared
  const settings = settingsOf(options)
  const { name, topic } = settings
  const { partitions, topic_id: topicId } = yield* topicOf(sql, topic)
  yield* assertPositions("seek", topic, partitions, to)
  const start = yield* resolveStart(shared, "seek", topic, to)
  const found = (yield* fanOutQuery("seek", () => Cursors.open(sql, topicId, name, settings.type, start)))[0]
  if (found === undefined) {
    return yield* new FanOutError({
      operation: "seek",
      retryable: true,
      reason: "another process created this subscription at the same time; try again"
    })
  }
  const { result } = yield* joinSubscription(shared, settings, found.subscription_id, true)
  if (result === "busy") return yield* new ConsumerBusy({ topic, subscription: name, type: found.type })
  yield* fanOutQuery("seek", () => Cursors.seek(sql, found.subscription_id, start))
}, Effect.scoped)

/** Closes what a failed effect opened in its scope, because its locks would block another try. */
const closeOnFailure = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  return yield* Scope.provide(effect, scope).pipe(
    Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)))
  )
})

/** The fan-out on a database that has its tables. `log` must be the log on the same database. */
export const make = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"],
  options: PostgresFanOutOptions = {}
): Effect.fn.Return<FanOut["Service"], never, Scope.Scope> {
  const shared = yield* makeShared(sql, log, options.derivedFrom ?? (() => Effect.succeed(new Set())))
  yield* Effect.forkScoped(
    Effect.forever(Effect.andThen(Effect.sleep(options.sweepMs ?? 1_000), Effect.ignore(sweep(shared))))
  )
  return FanOut.of({
    subscribe: (settings) => closeOnFailure(subscribe(shared, settings)),
    seek: (settings, to) => seek(shared, settings, to),
    unsubscribe: (topic, name) => Effect.asVoid(fanOutQuery("unsubscribe", () => Cursors.remove(sql, topic, name)))
  })
})

/** The fan-out on PostgreSQL. The pool `sql` must stay open as long; one more connection is opened with its options. */
export const layer = (sql: Sql, options?: PostgresFanOutOptions): Layer.Layer<FanOut, never, Log> =>
  Layer.effect(
    FanOut,
    Effect.flatMap(Effect.service(Log), (log) => make(sql, log, options))
  )
