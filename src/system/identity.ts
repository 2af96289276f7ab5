// Whose database it is: each belongs to one application, and its names on shared brokers are made from its identity.
import { randomBytes } from "node:crypto"
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import { type Session, transaction, type Sql } from "../postgres/client/client.ts"
import {
  forgetRelayNames,
  type FoundIdentity,
  hasRelayNames,
  lockIdentity,
  projectionNames,
  readIdentity,
  storeIdentity
} from "../postgres/store/identity.ts"
import { ForeignDatabase } from "./errors.ts"

/** The identity of a database that an application has. */
export interface Identity {
  readonly id: string
  readonly application: string
  readonly relayPrefix: string
  readonly epoch: number
}
/** What a person decided about a database that seems to be another's, or a copy. */
export interface IdentityDecision {
  /** The database is the application's, whatever it was called before, and wherever it was before. */
  readonly adopt?: boolean
  /** The database is a copy and runs beside the original: it gets an id of its own. */
  readonly newIdentity?: boolean
}

const which = "set MILLRACE_DATABASE_URL (or --data) to the database of this application"

const foreign = (application: Application.Any, owner: string) =>
  new ForeignDatabase({
    message: `the database belongs to the application ${owner}, and this one is called ${application.name}; a database has one application`,
    try: `${which}. If ${owner} was renamed to ${application.name}, stop its processes and run: millrace migrate --adopt`
  })

/** Fails with `ForeignDatabase` if the projections of a database without an application are all of another one. */
const assertMatches = Effect.fnUntraced(function* (application: Application.Any, sql: Sql | Session) {
  const names = yield* projectionNames(sql)
  const own = new Set(application.projections.map(({ projection }) => projection.name))
  if (names.length === 0 || names.some((name) => own.has(name))) return
  return yield* new ForeignDatabase({
    message: `the database has the projections ${names.join(", ")}, and the application ${application.name} has none of them; a database has one application`,
    try: `${which}. If it is this application's, run: millrace migrate --adopt`
  })
})

/** Fails with `ForeignDatabase` if the database belongs to another application, or has only projections of another. Changes nothing. */
export const assertOwn = Effect.fnUntraced(function* (application: Application.Any, sql: Sql) {
  const found = yield* readIdentity(sql)
  const owner = found?.application ?? null
  if (owner === null) return yield* assertMatches(application, sql)
  if (owner !== application.name) return yield* foreign(application, owner)
})

/** As `assertOwn`, and fails as well if no process of the application was ever started on the database. Changes nothing. */
export const assertRegistered = Effect.fnUntraced(function* (application: Application.Any, sql: Sql) {
  const found = yield* readIdentity(sql)
  const owner = found?.application ?? null
  if (owner === null)
    return yield* new ForeignDatabase({
      message: `the database is not prepared for the application ${application.name} yet`,
      try: "millrace migrate, or start the application with millrace dev or millrace start"
    })
  if (owner !== application.name) return yield* foreign(application, owner)
})

/**
 * Registers the application as the database's own, if it has none, and returns the identity. Fails with `ForeignDatabase` if it belongs to
 * another application, or, if `usesBrokers`, if it is a copy of the database of another server: both would have the same names on brokers.
 */
export const claimDatabase = (
  application: Application.Any,
  sql: Sql,
  { adopt = false, newIdentity = false, usesBrokers }: IdentityDecision & { readonly usesBrokers: boolean }
) =>
  transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      const found = yield* lockIdentity(tx)
      const isFirst = found.application === null
      if (isFirst && !adopt) yield* assertMatches(application, tx)
      if (!isFirst && found.application !== application.name && !adopt)
        return yield* foreign(application, found.application!)
      if (usesBrokers && !adopt && !newIdentity && isElsewhere(found)) return yield* moved(found.id)
      const renamed = !isFirst && found.application !== application.name
      const id = newIdentity ? randomBytes(4).toString("hex") : found.id
      // names on brokers that exist are kept, because positions on Kafka are stored under them
      const kept = newIdentity ? null : found.relayPrefix
      const fresh = `millrace-relay/${application.name}`
      const relayPrefix = kept ?? (!newIdentity && (yield* hasRelayNames(tx)) ? fresh : `${fresh}/${id}`)
      if (newIdentity) yield* forgetRelayNames(tx)
      const epoch = found.epoch + (renamed || newIdentity ? 1 : 0)
      const identity = { id, application: application.name, relayPrefix, epoch }
      yield* storeIdentity(tx, { ...identity, home: found.here ?? found.home })
      return identity satisfies Identity
    })
  )

const isElsewhere = ({ here, home }: FoundIdentity) => home !== null && here !== null && home !== here
const moved = (id: string) =>
  new ForeignDatabase({
    message: `the database (id ${id}) was restored from a dump of another server or database. Two databases with one id take each other's partitions and fence each other's relays`,
    try: "if this one replaces the other, stop the other's processes and run: millrace migrate --adopt; if it is a copy beside the other: millrace migrate --new-identity"
  })
