// Puts a running system together from its parts: a database, the log on it, the store, relays and servers, by roles.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Application, topicsOf } from "./application.ts"
import * as Embedded from "./embedded/embedded.ts"
import { FanOut } from "./fanout.ts"
import { Log, specOf } from "./log.ts"
import * as PostgresFanOut from "./postgres/fanout.ts"
import * as PostgresLog from "./postgres/log.ts"
import { connect, type Sql } from "./postgres/client.ts"
import { migrate } from "./postgres/migrate.ts"
import * as PostgresRelay from "./postgres/relay.ts"
import * as PostgresStore from "./postgres/store.ts"
import type { Projection } from "./projection.ts"
import * as Relay from "./relay.ts"
import * as Runner from "./runner.ts"
import { Store } from "./store.ts"

/** A database that answers, and where it is. */
export interface Database {
  readonly url: string
  /** Whether it is the one of the state directory. */
  readonly embedded: boolean
  readonly sql: Sql
  /** Fails when the server is gone for good. */
  readonly failed: Effect.Effect<never, Error>
}
/** The parts of a system that are open. */
export interface System {
  readonly database: Database
  readonly application: Application.Any
  readonly log: Log["Service"]
  readonly store: Store["Service"]
  readonly relay: PostgresRelay.Target
}

/**
 * Few: each prepares the same large statements for itself, and a handful keeps a server of several cores busy. At 500 events a second
 * 6 had half the p99 of 16.
 */
const connections = 6

/** The database of the environment, or the embedded one of a state directory: owned, or joined for as long as a command runs. */
export const openDatabase = Effect.fnUntraced(function* (
  dataDir: string,
  how: "own" | "join",
  options: { readonly max?: number; readonly asText?: boolean } = {}
) {
  const given = process.env["MILLRACE_DATABASE_URL"]
  const server =
    given === undefined || given === ""
      ? yield* how === "own" ? Embedded.start({ dataDir }) : Embedded.use({ dataDir })
      : { url: given, failed: Effect.never }
  const sql = yield* connect(server.url, { max: connections, ...options })
  const embedded = given === undefined || given === ""
  return { url: server.url, embedded, sql, failed: server.failed } satisfies Database
})

/** Opens everything that an application needs: migrates, declares topics, prepares projections. Idempotent, and safe beside others that do it. */
export const openSystem = Effect.fnUntraced(function* (
  application: Application.Any,
  database: Database,
  options: { readonly relaysHere?: boolean } = {}
) {
  const { sql } = database
  yield* migrate(sql)
  const { grown, log } = yield* PostgresLog.make(sql, { cleanMs: 60_000 })
  const topics = topicsOf(application)
  yield* log.declare(topics.map(({ partitions, topic }) => specOf(topic, partitions)))
  const relay = yield* PostgresRelay.make(sql, { appended: grown })
  const store = PostgresStore.make(sql, { published: options.relaysHere === false ? notifier(sql) : relay.signal })
  yield* store.prepare(
    application.projections.map(({ projection }) => projection),
    (name) => topics.find(({ topic }) => topic.name === name)?.partitions ?? 1
  )
  return { application, database, log, store, relay } satisfies System
})

/** Tells relays of other processes that there is something, once for all commits that end while a notification is under way. */
const notifier = (sql: Sql) => {
  let wanted = false
  let busy = false
  const tell = async () => {
    busy = true
    while (wanted) {
      wanted = false
      // a lost one costs a relay's poll, no more
      await sql`select pg_notify(${PostgresRelay.outboxChannel}, '')`.catch(() => undefined)
    }
    busy = false
  }
  return () => {
    wanted = true
    if (!busy) void tell()
  }
}

/** Runs every projection of the application, until interrupted. */
export const runProjections = ({ application, log, store }: System): Effect.Effect<void> => {
  const references: Runner.References = new Map()
  const services = (application.services ?? Layer.empty) as Layer.Layer<unknown>
  const runs = application.projections.map(({ projection }) => Runner.run(projection as Projection.Any, references))
  return Effect.all(runs, { concurrency: "unbounded", discard: true }).pipe(
    Effect.provideService(Log, log),
    Effect.provideService(Store, store),
    Effect.provide(services)
  ) as Effect.Effect<void>
}

/** Runs the relay and what tidies up behind it, until interrupted. */
export const runRelay = ({ database, relay }: System) =>
  Effect.all([Relay.run(relay), Relay.collect(PostgresRelay.collect(database.sql))], {
    concurrency: "unbounded",
    discard: true
  })

/** How far everything has come, as `status` prints it. */
export interface Status {
  readonly healthy: boolean
  readonly projections: ReadonlyArray<{
    readonly name: string
    readonly version: number
    readonly topic: string
    readonly partition: number
    readonly position: number
    readonly end: number
    readonly lag: number
    readonly epoch: number
    readonly stream_time: number | null
    readonly mode: string
    readonly halted: string | null
  }>
  readonly relays: ReadonlyArray<{ readonly target: string; readonly lag: number; readonly halted: string | null }>
  readonly dead_letters: number
}
/** Lagging this long without a commit is not healthy: nothing works on it. */
const stalledAfter = "60 seconds"
/** Reads the status; every figure of one statement is of one moment. */
export const readStatus = (sql: Sql): Effect.Effect<Status, Error> =>
  Effect.tryPromise({
    try: async () => {
      const projections = await sql<Array<Status["projections"][number] & { readonly stalled: boolean }>>`
        select g.projection as name, g.version, g.topic, g.partition, g.next_position as position,
          coalesce(h.next_position, 0) as end, greatest(coalesce(h.next_position, 0) - g.next_position, 0) as lag, g.epoch,
          g.stream_time, g.mode, g.halted,
          coalesce(h.next_position, 0) > g.next_position and coalesce(g.committed_at, 'epoch') < now() - ${stalledAfter}::interval
            and exists (select from millrace.log_batch b where b.topic_id = t.topic_id and b.partition = g.partition
              and b.next_position > g.next_position and b.appended_at < now() - ${stalledAfter}::interval) as stalled
        from millrace.progress g left join millrace.log_topic t on t.name = g.topic
          left join millrace.log_head h on h.topic_id = t.topic_id and h.partition = g.partition
        order by 1, 2, 3, 4`
      const relays = await sql<Array<Status["relays"][number]>>`
        select target, coalesce(sum(greatest(lag, 0)), 0)::int8 as lag, string_agg(halted, '; ') as halted from (
          select 'embedded' as target, (select max(o.outbox_seq) from millrace.progress o where o.projection = s.projection
              and o.topic = s.topic and o.partition = s.partition) - coalesce(r.seq, 0) as lag, r.halted
          from (select distinct projection, topic, partition from millrace.progress) s
          left join millrace.relay_position r on r.target = 'embedded' and r.projection = s.projection and r.source = s.topic
            and r.partition = s.partition
        ) lanes group by target`
      const [dead] = await sql<
        Array<{ n: number }>
      >`select count(*) as n from millrace.dead_letters where status in ('parked', 'retrying')`
      const healthy =
        projections.every(({ halted, stalled }) => halted === null && !stalled) &&
        relays.every(({ halted }) => halted === null)
      return {
        healthy,
        projections: projections.map(({ stalled: _, ...projection }) => projection),
        relays: [...relays],
        dead_letters: dead!.n
      }
    },
    catch: (cause) => cause as Error
  })

/** Where `layer` finds the system. */
export interface LayerOptions {
  /** The state directory whose embedded database is joined, or started for as long as the layer is open. Default `.millrace`. */
  readonly dataDir?: string
}
/**
 * The log and the fan-out of a system that other processes run, or may run later: for subscriptions and appends in programs of your
 * own. `MILLRACE_DATABASE_URL` names the database, as for the commands.
 */
export const layer = ({ dataDir = ".millrace" }: LayerOptions = {}): Layer.Layer<Log | FanOut, Error> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const { sql } = yield* openDatabase(dataDir, "join")
      yield* migrate(sql)
      const { log } = yield* PostgresLog.make(sql)
      const fanOut = yield* PostgresFanOut.make(sql, log)
      return Context.make(Log, log).pipe(Context.add(FanOut, fanOut))
    })
  )
