// Runs `millrace keys create|list|revoke`, beside the processes of the system or while none runs.
import * as Effect from "effect/Effect"
import { tenantProblem } from "../log/acceptable.ts"
import { createApiKey, listApiKeys, type ListedApiKey, revokeApiKey, showApiKey } from "../postgres/store/api-keys.ts"
import { newApiKey, partsOfApiKey } from "../server/access/api-keys.ts"
import { type Scope, scopes as known } from "../server/access/principal.ts"
import { asUnprepared, type CommandFailed, usageError } from "./command-failure.ts"
import { print } from "./print.ts"
import { rowCount, tableOf } from "./tables.ts"
import { parseDuration } from "./time.ts"
import { commaSeparated } from "../text/comma-separated.ts"
import { didYouMean } from "../text/similar-names.ts"
import { openJoined } from "./open-joined.ts"

interface KeysFlags {
  readonly data: string
  readonly config: string | undefined
  readonly json: boolean
}

const open = (flags: KeysFlags) => Effect.map(openJoined(flags), ({ sql }) => sql)
const parseScopes = (text: string): Effect.Effect<ReadonlyArray<Scope>, CommandFailed> => {
  const names = commaSeparated(text)
  const unknown = names.filter((name) => !known.includes(name as Scope))
  const similar = unknown[0] === undefined ? undefined : didYouMean(unknown[0], known)
  return unknown.length > 0 || names.length === 0
    ? Effect.fail(
        usageError(
          unknown.length > 0 ? `--scopes has ${unknown.join(", ")}, which is no scope` : "--scopes names no scope",
          similar ?? `--scopes ${known.join(",")}, or some of these`
        )
      )
    : Effect.succeed([...new Set(names)] as ReadonlyArray<Scope>)
}

/** Creates a key, and prints it this once. */
export const create = Effect.fnUntraced(function* (
  flags: KeysFlags & {
    readonly name: string
    readonly scopes: string
    readonly tenant: string | undefined
    readonly expires: string | undefined
  }
) {
  const { expires, json, name, tenant } = flags
  const scopes = yield* parseScopes(flags.scopes)
  if (name.trim() === "" || name.length > 200 || name.includes("\0"))
    return yield* usageError(
      "the name is empty, longer than 200 characters, or has NUL",
      "millrace keys create loader …"
    )
  const problem = tenant === undefined ? undefined : tenantProblem(tenant)
  if (problem !== undefined) return yield* usageError(`the tenant ${problem}`, "--tenant acme")
  if (tenant !== undefined && scopes.includes("operate"))
    return yield* usageError(
      "a key of a tenant cannot have the scope operate, which is about all tenants",
      "create two keys, or leave --tenant out"
    )
  const validMs = expires === undefined ? undefined : yield* parseDuration(expires, "--expires")
  const { digest, id, text } = newApiKey()
  const sql = yield* open(flags)
  const created = yield* Effect.mapError(createApiKey(sql, { id, digest, name, tenant, scopes, validMs }), asUnprepared)
  yield* print(
    json
      ? JSON.stringify({ ...created, key: text })
      : [
          text,
          `This is the only time that the key of ${name} is shown. It allows ${scopes.join(", ")} ${tenant === undefined ? "of all tenants" : `of the tenant ${tenant}`}${created.expires_at === null ? "" : ` until ${created.expires_at}`}.`,
          `Send it as: Authorization: Bearer ${text.slice(0, 16)}…   Revoke it with: millrace keys revoke ${id}`
        ].join("\n")
  )
  return 0
})

const columns = ["id", "name", "tenant", "scopes", "created", "expires", "last used", "revoked"]
const rowOf = (key: ListedApiKey) => [
  key.id,
  key.name,
  key.tenant ?? "all",
  key.scopes.join(","),
  key.created_at,
  key.expires_at ?? "",
  key.last_used_at ?? "",
  key.revoked_at ?? ""
]
/** Prints the keys, the newest first. */
export const list = Effect.fnUntraced(function* (flags: KeysFlags & { readonly all: boolean }) {
  const found = yield* Effect.mapError(listApiKeys(yield* open(flags), flags.all), asUnprepared)
  yield* print(
    flags.json
      ? JSON.stringify(found)
      : found.length === 0
        ? "no keys; create one with millrace keys create NAME --scopes ingest"
        : `${tableOf(columns, found.map(rowOf))}\n${rowCount(found.length)}`
  )
  return 0
})

/** Revokes a key, or prints which one it would be. */
export const revoke = Effect.fnUntraced(function* (
  flags: KeysFlags & { readonly id: string; readonly dryRun: boolean }
) {
  const { dryRun, json } = flags
  // the text of a key names its id, too
  const id = partsOfApiKey(flags.id)?.id ?? flags.id
  const revoked = yield* Effect.mapError((dryRun ? showApiKey : revokeApiKey)(yield* open(flags), id), asUnprepared)
  if (revoked === undefined)
    return yield* usageError(`there is no key ${JSON.stringify(id)}`, "see the ids with millrace keys list")
  const text =
    revoked.revoked_at !== null && dryRun
      ? `The key of ${revoked.name} was revoked before.`
      : `The key of ${revoked.name} ${dryRun ? "would be" : "is"} revoked: servers refuse it within 5 seconds.`
  yield* print(json ? JSON.stringify(dryRun ? { dry_run: true, ...revoked } : revoked) : text)
  return 0
})
