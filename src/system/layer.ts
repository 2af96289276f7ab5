// What programs beside a system use of it: `layer` gives them its log and its fan-out, `once` lets a subscription take effect once.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { EventStore } from "../aggregate/event-store.ts"
import { Log } from "../log/log.ts"
import type { Application } from "../model/application.ts"
import { topicsBehind } from "../model/chains.ts"
import { connect } from "../postgres/client/client.ts"
import { readKnownBuilds } from "../postgres/store/builds.ts"
import { migrate } from "../postgres/client/migrate.ts"
import { makeNotifier } from "../postgres/relay/notify.ts"
import * as PostgresFanOut from "../postgres/subscription/fanout.ts"
import * as PostgresOnce from "../postgres/subscription/once.ts"
import { FanOut, FanOutError } from "../subscription/fanout.ts"
import { openDatabase } from "./database.ts"
import { pulsarOptions } from "./environment.ts"
import { takeCommandsBeside } from "./inline-code.ts"
import { openEvents } from "./open-event-store.ts"
import { openLog } from "./open-log.ts"

/** Where `layer` finds the system. */
export interface LayerOptions {
  /** The state directory whose embedded database is used, or started for as long as the layer is open. Default `.millrace`. */
  readonly dataDir?: string
  /**
   * The application whose aggregates get commands. It is needed if it has inline projections: their rows are written with the events. With it the
   * program counts as a process that takes commands for as long as the layer is open.
   */
  readonly application?: Application.Any
}

// Pulsar's code is loaded only if it is used.
const openPulsarFanOut = Effect.gen(function* () {
  const options = yield* pulsarOptions
  if (options === undefined) return undefined
  const PulsarFanOut = yield* Effect.promise(() => import("../pulsar/subscription/fanout.ts"))
  return yield* PulsarFanOut.make(options)
})

/**
 * The log, the fan-out and the event store of a system that other processes run, or will run later: for subscriptions, appends and commands
 * in your own programs. Commands need a database in which the application was started once.
 * `MILLRACE_DATABASE_URL`, `MILLRACE_KAFKA_BROKERS` and `MILLRACE_PULSAR_URL` say where they are, as for the `millrace` commands.
 *
 * ```ts
 * const sending = Subscription.run(mails, (alert) => sendMail(alert)).pipe(Effect.provide(layer()))
 * ```
 */
export const layer = ({ application, dataDir = ".millrace" }: LayerOptions = {}): Layer.Layer<
  Log | FanOut | EventStore,
  Error
> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const pulsar = yield* openPulsarFanOut
      const { sql } = yield* openDatabase(dataDir, "join")
      yield* migrate(sql)
      const opened = yield* openLog(Effect.succeed(sql))
      const own =
        opened.on === "Kafka"
          ? Effect.succeed(noFanOut)
          : PostgresFanOut.make(opened.sql, opened.log, {
              derivedFrom: (topic) =>
                Effect.map(readKnownBuilds(opened.sql), (known) =>
                  topicsBehind(
                    [...known.values()].flatMap(({ all }) => all),
                    topic
                  )
                )
            })
      const { eventStore } = yield* openEvents(sql, {
        appended: opened.appended,
        published: makeNotifier(sql),
        ...(application !== undefined && { application })
      })
      if (application !== undefined) yield* takeCommandsBeside(application, sql)
      return Context.make(Log, opened.log).pipe(
        Context.add(FanOut, pulsar ?? (yield* own)),
        Context.add(EventStore, eventStore)
      )
    })
  )

const refuse = (operation: string) =>
  Effect.fail(
    new FanOutError({
      operation,
      retryable: false,
      reason:
        "the derived topics are on Kafka, which has no subscriptions with redelivery and dead letters. try: set MILLRACE_PULSAR_URL, or read the topics with a consumer group"
    })
  )
const noFanOut = FanOut.of({
  subscribe: () => refuse("subscribe"),
  seek: () => refuse("seek"),
  unsubscribe: () => refuse("unsubscribe")
})

/** Where and how `once` keeps the ids of handled messages. */
export interface OnceOptions extends PostgresOnce.OnceOptions {
  /** The consumer's own database. Default: that of `MILLRACE_DATABASE_URL`, or the embedded one of `dataDir`. */
  readonly url?: string
  /** The state directory whose embedded database is used, or started for as long as the scope is open. Default `.millrace`. */
  readonly dataDir?: string
}
/**
 * Makes the handlers of `Subscription.run` take effect once: each gets a transaction on a PostgreSQL database, a tagged template of postgres.js,
 * in which its message is marked as handled. Creates the schema `millrace_once` in that database if it does not exist.
 *
 * ```ts
 * const program = Effect.scoped(
 *   Effect.gen(function* () {
 *     const marks = yield* once()
 *     return yield* Subscription.run(
 *       mails,
 *       (alert, _, sql) => Effect.tryPromise(() => sql`insert into sent (alert_id) values (${alert.alert_id})`),
 *       { once: marks }
 *     )
 *   })
 * )
 * ```
 */
export const once = Effect.fnUntraced(function* ({ dataDir = ".millrace", url, ...options }: OnceOptions = {}) {
  const sql = url === undefined ? (yield* openDatabase(dataDir, "join")).sql : yield* connect(url, { max: 2 })
  return yield* PostgresOnce.make(sql, options)
})
