// The fan-out on PostgreSQL: durable subscriptions of the log's topics, whose state is in tables. It reads the log through its port.
import { randomInt } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import {
  assertPositions,
  ConsumerBusy,
  defaults,
  FanOut,
  FanOutError,
  redeliveryDelay,
  type StartAt,
  type SubscribeOptions
} from "../../subscription/fanout.ts"
import { Log, type OutOfRange, type ReadError, UnknownTopic } from "../../log/log.ts"
import type { Sql } from "../client/client.ts"
import { query, type SqlError } from "../client/errors.ts"
import * as Cursors from "./cursors.ts"
import { attempt, PostgresConsumer, type Parts, type Settings } from "./consumer.ts"
import { Feed } from "./prefetch.ts"
import { join, leave, type Locks, type Member, unreserve } from "./locks.ts"
import * as Statement from "./leases-sql.ts"
import * as Session from "../client/session.ts"

/** How the fan-out on PostgreSQL works. */
export interface Options {
  /** How often it looks for consumers that died or hang, and for what they had, in milliseconds. Default 1,000. */
  readonly sweepMs?: number
}
/** What is notified: `<subscription>;<in so many milliseconds>`. */
const channel = "millrace_fanout"

const settingsOf = (options: SubscribeOptions): Settings => ({
  ...defaults,
  deadLetterTopic: `${options.topic}.${options.name}.dlq`,
  maxRedeliveryDelayMs: redeliveryDelay(options, 0),
  ...options
})

/** What the subscriptions of a process share. */
interface Shared {
  readonly sql: Sql
  readonly log: Log["Service"]
  readonly locks: Locks
  /** By subscription. */
  readonly consumers: Map<number, Set<PostgresConsumer>>
}
const due = ({ consumers }: Shared, subscription: number, delayMs: number) => {
  for (const consumer of consumers.get(subscription) ?? []) consumer.due(delayMs)
}

const makeShared = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"]
): Effect.fn.Return<Shared, never, Scope.Scope> {
  const consumers: Shared["consumers"] = new Map()
  const nudged = Latch.makeUnsafe(false)
  const look = () => {
    nudged.openUnsafe()
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
      nudged.openUnsafe()
      due(shared, Number(subscription), Number(delayMs))
    },
    ready: look,
    lost: look
  })
  const shared: Shared = { sql, log, consumers, locks: { session, reserved: new Map(), nudged } }
  return shared
})

/** One look at what consumers lost, and at what is due to come again. */
const sweep = Effect.fnUntraced(function* (shared: Shared) {
  const subscriptions = [...shared.consumers.keys()]
  if (subscriptions.length === 0) return
  yield* query("sweep", () => Statement.sweep(shared.sql, subscriptions))
  const rows = yield* query("sweep", () => Statement.nextDue(shared.sql, subscriptions))
  for (const row of rows) due(shared, row.subscription_id, Math.max(row.due_ms, 0))
})

const topicOf = Effect.fnUntraced(function* (sql: Sql, topic: string) {
  const [row] = yield* attempt(
    "subscribe",
    () => sql<Array<{ topic_id: number; partitions: number }>>`
      select topic_id, partitions from millrace.log_topic where name = ${topic}`
  )
  if (row === undefined) return yield* new UnknownTopic({ topic, reason: "the topic does not exist" })
  return row
})

/** Joins as a member until the scope closes. A failover consumer that finds another one joins later, when it receives. */
const enter = Effect.fnUntraced(function* (shared: Shared, settings: Settings, subscription: number, alone: boolean) {
  const { locks } = shared
  const member: Member = {
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

/** The subscription with this type, and this consumer's locks in it. */
const member = Effect.fnUntraced(function* (shared: Shared, settings: Settings, topicId: number) {
  const { sql } = shared
  const { from, name, topic, type } = settings
  const find = Effect.gen(function* () {
    while (true) {
      const [row] = yield* attempt("subscribe", () => Cursors.open(sql, topicId, name, type, from))
      // made by another at this moment, so that neither part of the statement saw it
      if (row !== undefined) return row
    }
  })
  const found = yield* find
  if (found.type !== type) {
    // nobody may be there while it changes
    const changed = yield* Effect.scoped(
      Effect.gen(function* () {
        const { result } = yield* enter(shared, settings, found.subscription_id, true)
        if (result === "joined") yield* attempt("subscribe", () => Cursors.setType(sql, found.subscription_id, type))
        return result === "joined"
      })
    )
    if (!changed) return yield* new ConsumerBusy({ topic, subscription: name, type: found.type })
  }
  const entered = yield* enter(shared, settings, found.subscription_id, isAlone(type))
  if (entered.result === "busy" && type !== "failover") {
    return yield* new ConsumerBusy({ topic, subscription: name, type: (yield* find).type })
  }
  return entered.member
})

const again = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(
  Schedule.setInputType<ReadError | SqlError>(),
  Schedule.while(({ input }) => "retryable" in input && input.retryable)
)

/** Reads ahead of a feed until the scope closes; a failure that stays is the consumer's. */
const follow = Effect.fnUntraced(function* (
  shared: Shared,
  consumer: PostgresConsumer,
  feed: Feed,
  { name, topic }: Settings,
  subscription: number
) {
  const { partition } = feed
  const skip = (error: OutOfRange): Effect.Effect<void, OutOfRange | SqlError> => {
    if (error.position > error.end) return Effect.fail(error)
    // retention deleted what was not delivered: nobody can have it any more
    return Effect.gen(function* () {
      yield* Effect.logWarning(`subscription ${name}: ${error.message}; going on at ${error.start}`)
      yield* query("skip", () => Cursors.skipTo(shared.sql, subscription, partition, error.start))
      feed.forget(error.start)
    })
  }
  const reading: Effect.Effect<void, ReadError | SqlError> = feed
    .pump(shared.log, topic, () => consumer.signal.openUnsafe())
    .pipe(Effect.catchTag("OutOfRange", skip))
  yield* Effect.forever(reading).pipe(
    Effect.retry(again),
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

const notifier = (shared: Shared, subscription: number) =>
  Effect.fnUntraced(function* (delayMs: number) {
    due(shared, subscription, delayMs)
    yield* Effect.ignore(
      query("notify", () => shared.sql`select pg_notify(${channel}, ${`${subscription};${delayMs}`})`)
    )
  })

const subscribe = Effect.fnUntraced(function* (shared: Shared, options: SubscribeOptions) {
  const { consumers, locks, log, sql } = shared
  const settings = settingsOf(options)
  const { deadLetterTopic: name, topic } = settings
  const { partitions, topic_id: topicId } = yield* topicOf(sql, topic)
  yield* assertPositions("subscribe", topic, partitions, settings.from)
  const joined = yield* member(shared, settings, topicId)
  const { subscription } = joined
  yield* attempt("subscribe", () => Statement.sweep(sql, [subscription]))
  const cursors = yield* attempt("subscribe", () => Cursors.cursors(sql, subscription))
  const parts: Parts = {
    sql,
    log,
    locks,
    member: joined,
    settings,
    feeds: cursors.map(({ next, partition }) => new Feed(partition, next)),
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

/** Moves a subscription while nobody consumes it. */
const seek = Effect.fnUntraced(function* (shared: Shared, options: SubscribeOptions, to: StartAt) {
  const { sql } = shared
  const settings = settingsOf(options)
  const { name, topic } = settings
  const { partitions, topic_id: topicId } = yield* topicOf(sql, topic)
  yield* assertPositions("seek", topic, partitions, to)
  const found = (yield* attempt("seek", () => Cursors.open(sql, topicId, name, settings.type, to)))[0]
  if (found === undefined) {
    return yield* new FanOutError({
      operation: "seek",
      retryable: true,
      reason: "it was made at this moment by another"
    })
  }
  const { result } = yield* enter(shared, settings, found.subscription_id, true)
  if (result === "busy") return yield* new ConsumerBusy({ topic, subscription: name, type: found.type })
  yield* attempt("seek", () => Cursors.seek(sql, found.subscription_id, to))
}, Effect.scoped)

/** A subscription that failed leaves nothing in its scope: a further try would meet the locks of the first. */
const whole = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  return yield* Scope.provide(effect, scope).pipe(
    Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)))
  )
})

/** The fan-out on a database that has its tables, reading `log`, which must be the log on the same database. */
export const make = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"],
  options: Options = {}
): Effect.fn.Return<FanOut["Service"], never, Scope.Scope> {
  const shared = yield* makeShared(sql, log)
  yield* Effect.forkScoped(
    Effect.forever(Effect.andThen(Effect.sleep(options.sweepMs ?? 1_000), Effect.ignore(sweep(shared))))
  )
  return FanOut.of({
    subscribe: (settings) => whole(subscribe(shared, settings)),
    seek: (settings, to) => seek(shared, settings, to),
    unsubscribe: (topic, name) => Effect.asVoid(attempt("unsubscribe", () => Cursors.remove(sql, topic, name)))
  })
})

/** The fan-out on PostgreSQL. `sql` is a pool that stays open as long; one connection more is made with its options. */
export const layer = (sql: Sql, options?: Options): Layer.Layer<FanOut, never, Log> =>
  Layer.effect(
    FanOut,
    Effect.flatMap(Effect.service(Log), (log) => make(sql, log, options))
  )
