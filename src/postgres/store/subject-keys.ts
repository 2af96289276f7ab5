// The keys of subjects on PostgreSQL: cached for a minute, created when they are first needed, and destroyed by an erasure.
import { randomBytes } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { SubjectErased, SubjectKeysError } from "../../erasure/errors.ts"
import {
  decrypted,
  encrypted,
  type FindKey,
  type KeyRef,
  keyOf,
  maySeal,
  type SubjectKey
} from "../../erasure/sealed.ts"
import type { ErasedSubject, SubjectKeys } from "../../erasure/subject-keys.ts"
import type { Sql } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import { answered } from "../client/answer.ts"
import { query } from "../client/errors.ts"
import { retrying } from "../client/retrying.ts"

/** How long a key is found in memory after it was read, in milliseconds, if no notification says that it was destroyed. */
const cacheMs = 60_000
const mostCached = 20_000
const keyBytes = 32
/** The channel on which erasures are announced between processes: the subject's id. */
export const erasureChannel = "millrace_erasure"
const [plain, encryptedForm] = [0, 1]

/** How keys are stored. */
export interface SubjectKeysOptions {
  /** 32 bytes that encrypt the stored keys, so that a copy of the database alone does not open what it holds. */
  readonly keyEncryptionKey?: Uint8Array | undefined
  /** Called when a subject was erased by any process, or when a notification may have been missed (undefined): drop states in memory. */
  readonly erased?: (subject: string | undefined) => void
}

type Keys = SubjectKeys["Service"]
/** Keys in a database. */
export interface PostgresSubjectKeys extends Keys {
  /** Fails if the stored keys are encrypted and cannot be decrypted by what the options have. Looks at one of them. */
  readonly assertReadable: Effect.Effect<void, SubjectKeysError>
  /** Listens for erasures by other processes, until the scope closes. Without it a destroyed key may be found for a minute. */
  readonly listen: Effect.Effect<void, SubjectKeysError, Scope.Scope>
}

const addressed = ({ number, subject }: KeyRef) => Buffer.from(JSON.stringify([subject, number]))
const wrap = (ref: KeyRef, key: Uint8Array, by: Uint8Array | undefined): Buffer => {
  if (by === undefined) return Buffer.concat([Buffer.from([plain]), key])
  return Buffer.concat([Buffer.from([encryptedForm]), encrypted(key, by, addressed(ref))])
}
const unwrap = (ref: KeyRef, stored: Uint8Array, by: Uint8Array | undefined): Uint8Array => {
  if (stored[0] === plain) return stored.subarray(1)
  if (by === undefined)
    throw new Error(
      "the keys of personal data are encrypted; set MILLRACE_KEY_ENCRYPTION_KEY to the key that encrypts them"
    )
  try {
    return decrypted(stored.subarray(1), by, addressed(ref))
  } catch {
    throw new Error(
      "a key of personal data was encrypted with another MILLRACE_KEY_ENCRYPTION_KEY; set the one it was encrypted with"
    )
  }
}

interface Row {
  readonly subject: string
  readonly number: number
  readonly key: Uint8Array | null
}
/** A key that was read; null: it was destroyed. */
interface Cached {
  readonly key: Uint8Array | null
  readonly readAt: number
}
const textOf = ({ number, subject }: KeyRef) => `${number} ${subject}`

/** The keys that were read lately. A destroyed key is destroyed for good. */
class KeyCache {
  private readonly keys = new Map<string, Cached>()
  private readonly latest = new Map<string, { readonly number: number; readonly readAt: number }>()

  find(ref: KeyRef, now: number): Uint8Array | null | undefined {
    const found = this.keys.get(textOf(ref))
    return found !== undefined && (found.key === null || now - found.readAt < cacheMs) ? found.key : undefined
  }
  newest(subject: string, now: number): SubjectKey | undefined {
    const latest = this.latest.get(subject)
    if (latest === undefined || now - latest.readAt >= cacheMs) return undefined
    const key = this.find({ subject, number: latest.number }, now)
    return key === undefined || key === null ? undefined : { subject, number: latest.number, key }
  }
  put(ref: KeyRef, key: Uint8Array | null, readAt: number, isNewest: boolean): void {
    bounded(this.keys, textOf(ref), { key, readAt })
    if (isNewest) bounded(this.latest, ref.subject, { number: ref.number, readAt })
  }
  /** Forgets a subject, or all of them. */
  drop(subject: string | undefined): void {
    if (subject === undefined) {
      this.keys.clear()
      this.latest.clear()
      return
    }
    this.latest.delete(subject)
    for (const text of this.keys.keys()) if (text.slice(text.indexOf(" ") + 1) === subject) this.keys.delete(text)
  }
}
const bounded = <V>(map: Map<string, V>, key: string, value: V): void => {
  map.delete(key)
  map.set(key, value)
  if (map.size > mostCached) map.delete(map.keys().next().value!)
}

type Operation = SubjectKeysError["operation"]
const run = <A>(operation: Operation, statement: () => PromiseLike<A>): Effect.Effect<A, SubjectKeysError> =>
  retrying(
    Effect.mapError(
      query(operation, () => answered(statement())),
      (error) =>
        new SubjectKeysError({
          operation,
          retryable: error.retryable || error.inDoubt,
          reason: error.reason,
          cause: error
        })
    ),
    { forMs: 10_000 }
  )
const decoded = (operation: Operation, ref: KeyRef, key: Uint8Array | null, by: Uint8Array | undefined) =>
  Effect.try({
    try: () => (key === null ? null : unwrap(ref, key, by)),
    catch: (cause) => new SubjectKeysError({ operation, retryable: false, reason: (cause as Error).message, cause })
  })

const makeNewest = (sql: Sql, cache: KeyCache, keyEncryptionKey: Uint8Array | undefined): Keys["newest"] =>
  Effect.fnUntraced(function* (subjects) {
    const now = Date.now()
    const found = new Map<string, SubjectKey>()
    for (const subject of subjects) {
      const key = cache.newest(subject, now)
      if (key !== undefined) found.set(subject, key)
    }
    const missing = subjects.filter((subject) => !found.has(subject)).toSorted()
    if (missing.length === 0) return found
    const created = missing.map((subject) => wrap({ subject, number: 1 }, randomBytes(keyBytes), keyEncryptionKey))
    yield* run(
      "create",
      () => sql`
      insert into millrace.subject_key (subject, number, key)
      select t.subject, 1, decode(t.key, 'hex')
      from unnest(${arrayOf(missing)}::text[], ${arrayOf(created.map((key) => key.toString("hex")))}::text[]) as t(subject, key)
      on conflict do nothing`
    )
    const rows = yield* run(
      "create",
      () => sql<Array<Row>>`
      select distinct on (subject) subject, number, key from millrace.subject_key
      where subject = any(${arrayOf(missing)}::text[]) order by subject, number desc`
    )
    const erasedSubjects = rows.filter(({ key }) => key === null).map(({ subject }) => subject)
    if (erasedSubjects.length > 0) return yield* new SubjectErased({ subjects: erasedSubjects })
    for (const { key: stored, number, subject } of rows) {
      const key = (yield* decoded("create", { subject, number }, stored, keyEncryptionKey))!
      cache.put({ subject, number }, key, now, true)
      found.set(subject, { subject, number, key })
    }
    return found
  })
const makeForValues = (sql: Sql, cache: KeyCache, keyEncryptionKey: Uint8Array | undefined): Keys["forValues"] =>
  Effect.fnUntraced(function* (values) {
    const now = Date.now()
    const found = new Map<string, Uint8Array | null>()
    const missing = new Map<string, KeyRef>()
    for (const value of values) {
      if (value === null || !maySeal(value)) continue
      const ref = refOf(value)
      if (ref === undefined) continue
      const key = cache.find(ref, now)
      if (key === undefined) missing.set(textOf(ref), ref)
      else found.set(textOf(ref), key)
    }
    if (missing.size > 0) {
      const refs = [...missing.values()]
      const rows = yield* run(
        "find",
        () => sql<Array<Row>>`
        select k.subject, k.number, k.key from unnest(${arrayOf(refs.map(({ subject }) => subject))}::text[], ${arrayOf(refs.map(({ number }) => number))}::int4[]) as q(subject, number)
        join millrace.subject_key k using (subject, number)`
      )
      for (const { key: stored, number, subject } of rows) {
        const key = yield* decoded("find", { subject, number }, stored, keyEncryptionKey)
        cache.put({ subject, number }, key, now, false)
        found.set(textOf({ subject, number }), key)
      }
    }
    const find: FindKey = (ref) => found.get(textOf(ref))
    return find
  })
const makeErase = (sql: Sql, forget: (subject: string | undefined) => void): Keys["erase"] =>
  Effect.fnUntraced(function* (subject) {
    const rows = yield* run(
      "erase",
      () => sql<Array<Pick<ErasedSubject, "keys" | "number">>>`
      with destroyed as (
        update millrace.subject_key set key = null, destroyed_at = clock_timestamp() where subject = ${subject} and key is not null
        returning number
      ), tombstone as (
        -- of a subject without a key: what is appended later is refused as well
        insert into millrace.subject_key (subject, number, destroyed_at)
        select ${subject}, 1, clock_timestamp() where not exists (select from millrace.subject_key where subject = ${subject})
        on conflict (subject, number) do update set key = null, destroyed_at = coalesce(subject_key.destroyed_at, excluded.destroyed_at)
        returning number
      ), told as (select pg_notify(${erasureChannel}, ${subject}))
      select (select count(*) from destroyed)::int4 as keys,
        greatest((select max(number) from destroyed), (select max(number) from tombstone),
          (select max(number) from millrace.subject_key where subject = ${subject}))::int4 as number
      from told`
    )
    // a statement of its own: it sees the snapshots that were stored while the other one waited for the keys, and none is stored after it
    const snapshots = yield* run(
      "erase",
      () => sql`
      delete from millrace.event_snapshot where subjects && array[${subject}::text] returning 1`
    )
    forget(subject)
    return { subject, ...rows[0]!, snapshots: snapshots.length }
  })
const makeReadmit = (sql: Sql, cache: KeyCache, keyEncryptionKey: Uint8Array | undefined): Keys["readmit"] =>
  Effect.fnUntraced(function* (subject) {
    const [newestRow] = yield* run(
      "readmit",
      () => sql<Array<Row>>`
      select subject, number, key from millrace.subject_key where subject = ${subject} order by number desc limit 1`
    )
    if (newestRow === undefined || newestRow.key !== null) return false
    const ref = { subject, number: newestRow.number + 1 }
    const key = wrap(ref, randomBytes(keyBytes), keyEncryptionKey)
    yield* run(
      "readmit",
      () => sql`
      insert into millrace.subject_key (subject, number, key) values (${subject}, ${ref.number}, ${key}) on conflict do nothing`
    )
    cache.drop(subject)
    return true
  })

/** The keys of subjects in a database that has their table. */
export const makeSubjectKeys = (
  sql: Sql,
  { erased = () => undefined, keyEncryptionKey }: SubjectKeysOptions = {}
): PostgresSubjectKeys => {
  const cache = new KeyCache()
  const forget = (subject: string | undefined) => {
    cache.drop(subject)
    erased(subject)
  }
  return {
    newest: makeNewest(sql, cache, keyEncryptionKey),
    forValues: makeForValues(sql, cache, keyEncryptionKey),
    erase: makeErase(sql, forget),
    readmit: makeReadmit(sql, cache, keyEncryptionKey),
    assertReadable: Effect.gen(function* () {
      const [row] = yield* run(
        "find",
        () => sql<Array<Row>>`
        select subject, number, key from millrace.subject_key where key is not null and get_byte(key, 0) = ${encryptedForm} limit 1`
      )
      if (row !== undefined) yield* decoded("find", row, row.key, keyEncryptionKey)
    }),
    // after a reconnection a notification may have been missed
    listen: Effect.gen(function* () {
      const listening = yield* run("find", () => sql.listen(erasureChannel, forget, () => forget(undefined)))
      yield* Effect.addFinalizer(() => Effect.ignore(Effect.promise(() => listening.unlisten())))
    })
  }
}
const refOf = (value: string): KeyRef | undefined => {
  try {
    return keyOf(JSON.parse(value))
  } catch {
    return undefined
  }
}
