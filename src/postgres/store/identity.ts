// The row that says whose database this is: its id, its application, and the prefix of the relays' names on brokers.
import * as Effect from "effect/Effect"
import { query, type Session, type Sql, type SqlError } from "../client/client.ts"

/** Whose database it is, as it is stored. */
export interface StoredIdentity {
  /** 8 hex digits that no other database has, except copies of this one. */
  readonly id: string
  /** The name of the application; null before the first one is started. */
  readonly application: string | null
  /** What names of relays on brokers start with; null before the first application is started. */
  readonly relayPrefix: string | null
  /** Grows when the names of consumer groups change. */
  readonly epoch: number
  /** The server and database that the identity was last used on; null before. */
  readonly home: string | null
}
/** A stored identity, and where the database is now. */
export interface FoundIdentity extends StoredIdentity {
  /** As `home`, of the present server; null if the role may not read it. */
  readonly here: string | null
}

const undefinedTable = "42P01"
const undefinedSchema = "3F000"
const isAbsent = ({ code }: SqlError) => code === undefinedTable || code === undefinedSchema

/** Reads the identity. Undefined if the database is not migrated, or by a version of Millrace that had no identities. */
export const readIdentity = (sql: Sql | Session): Effect.Effect<FoundIdentity | undefined, SqlError> =>
  query("read whose database it is", async () => {
    const [row] = await sql.unsafe<Array<StoredIdentity>>(
      `select id, application, relay_prefix as "relayPrefix", epoch, home from millrace.system`
    )
    return row
  }).pipe(
    Effect.catchIf(isAbsent, () => Effect.succeed(undefined)),
    Effect.flatMap((row) =>
      row === undefined ? Effect.succeed(undefined) : Effect.map(readHome(sql), (here) => ({ ...row, here }))
    )
  )

/** The server's identifier and the database's number in it. Null if the role may not read them. */
const readHome = (sql: Sql | Session): Effect.Effect<string | null, SqlError> =>
  query("read which server it is", async () => {
    const [row] = await sql.unsafe<Array<{ readonly home: string }>>(
      `select (select system_identifier from pg_control_system())::text || '/' ||
        (select oid from pg_database where datname = current_database())::text as home`
    )
    return row!.home
  }).pipe(
    Effect.catchIf(
      ({ code }) => code === "42501" || code === "42883",
      () => Effect.succeed(null)
    )
  )

/** Locks the identity for the rest of a transaction, and reads it. */
export const lockIdentity = (tx: Session): Effect.Effect<FoundIdentity, SqlError> =>
  Effect.andThen(
    query("wait for other processes that start", () => tx.unsafe("select from millrace.system for update")),
    Effect.map(readIdentity(tx), (found) => found!)
  )

/** Stores the identity. */
export const storeIdentity = (tx: Session, { application, epoch, home, id, relayPrefix }: StoredIdentity) =>
  query(
    "store whose database it is",
    () =>
      tx`update millrace.system set id = ${id}, application = ${application}, relay_prefix = ${relayPrefix}, epoch = ${epoch}, home = ${home}`
  )

/** Removes the names that relays had on brokers, so that no relay of this database takes over a producer of another. */
export const forgetRelayNames = (tx: Session) =>
  query("forget names of relays", () =>
    tx.unsafe(
      `delete from millrace.relay_lane; update millrace.relay_grouping set generation = generation + 1, fenced = false`
    )
  )

/** Whether relays of this database have published to a broker, under names of the form `millrace-relay/APPLICATION`. */
export const hasRelayNames = (tx: Session): Effect.Effect<boolean, SqlError> =>
  query("look for names of relays", async () => {
    const [row] = await tx.unsafe<Array<{ readonly found: boolean }>>(
      `select exists (select from millrace.relay_lane) as found`
    )
    return row!.found
  })

/** The names of the projections that the database has, retired ones included. None if it is not migrated. */
export const projectionNames = (sql: Sql | Session): Effect.Effect<ReadonlyArray<string>, SqlError> =>
  query("read the projections' names", async () => {
    const rows = await sql.unsafe<Array<{ readonly name: string }>>(
      `select distinct name from millrace.projection order by name`
    )
    return rows.map(({ name }) => name)
  }).pipe(Effect.catchIf(isAbsent, () => Effect.succeed([])))
