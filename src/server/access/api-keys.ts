// API keys: their text, and the check of a presented one against stored digests.
import { createHash, randomBytes, timingSafeEqual } from "node:crypto"
import * as Effect from "effect/Effect"
import { type ApiKeyRow, findApiKey, noteApiKeyUse } from "../../postgres/store/api-keys.ts"
import type { Sql } from "../../postgres/client/client.ts"
import type { Principal, Scope } from "./principal.ts"

/** How long what was read of a key is used, in milliseconds: after that, a revocation has an effect everywhere. */
const freshMs = 5_000
/** For how long a key that was read is used while the database does not answer, in milliseconds. */
const staleMs = 60_000
/** How many keys are kept at most, those that do not exist included. */
const mostKept = 10_000
/** How often the use of a key is noted at most, in milliseconds. */
const noteMs = 60_000

/** SHA-256: a secret has 256 random bits, so a slow hash would add nothing. */
const digestOf = (secret: string): Buffer => createHash("sha256").update(secret).digest()

/** A new key: its text, which is shown once, and what is stored of it. */
export const newApiKey = (): { readonly text: string; readonly id: string; readonly digest: Uint8Array } => {
  const id = randomBytes(6).toString("hex")
  const secret = randomBytes(32).toString("base64url")
  return { text: `mr_${id}_${secret}`, id, digest: digestOf(secret) }
}
/** The id and the secret in a key's text; undefined if the text is not that of a key. */
export const partsOfApiKey = (text: string): { readonly id: string; readonly secret: string } | undefined => {
  const [, id, secret] = /^mr_([0-9a-f]{12})_([\w-]{43})$/.exec(text) ?? []
  return id === undefined ? undefined : { id, secret: secret! }
}

interface Kept {
  readonly row: ApiKeyRow | undefined
  readonly readAt: number
  notedAt: number
}

/** The API keys of a database, as a server checks them. Times are in milliseconds of a steady clock. */
export class ApiKeys {
  readonly #sql: Sql
  readonly #now: () => number
  readonly #kept = new Map<string, Kept>()
  readonly #asked = new Map<string, Promise<Kept>>()

  constructor(sql: Sql, now: () => number = () => performance.now()) {
    this.#sql = sql
    this.#now = now
  }

  /** The principal of a key; undefined if it does not exist, has expired or was revoked. Rejects if the database does not answer. */
  async principalOf(text: string): Promise<Principal | undefined> {
    const parts = partsOfApiKey(text)
    if (parts === undefined) return undefined
    const kept = await this.#find(parts.id)
    const { row } = kept
    if (row === undefined || !timingSafeEqual(digestOf(parts.secret), row.digest)) return undefined
    if (row.revoked || (row.expires_ms !== null && row.expires_ms <= Date.now())) return undefined
    this.#note(parts.id, kept)
    const scopes = new Set(row.scopes as ReadonlyArray<Scope>)
    return { name: row.name, tenant: row.tenant ?? undefined, scopes, expiresMs: row.expires_ms ?? undefined }
  }

  async #find(id: string): Promise<Kept> {
    const kept = this.#kept.get(id)
    const age = kept === undefined ? Infinity : this.#now() - kept.readAt
    if (age < freshMs) return kept!
    try {
      return await this.#read(id, kept?.notedAt ?? -Infinity)
    } catch (error) {
      if (age < staleMs) return kept!
      throw error
    }
  }
  /** Reads a key once for all requests that present it at the same time. */
  #read(id: string, notedAt: number): Promise<Kept> {
    const asked = this.#asked.get(id)
    if (asked !== undefined) return asked
    const read = Effect.runPromise(findApiKey(this.#sql, id))
      .then((row) => {
        const kept = { row, readAt: this.#now(), notedAt }
        this.#kept.delete(id)
        this.#kept.set(id, kept)
        for (const oldest of this.#kept.keys()) {
          if (this.#kept.size <= mostKept) break
          this.#kept.delete(oldest)
        }
        return kept
      })
      .finally(() => this.#asked.delete(id))
    this.#asked.set(id, read)
    return read
  }
  #note(id: string, kept: Kept): void {
    if (this.#now() - kept.notedAt < noteMs) return
    kept.notedAt = this.#now()
    // nobody waits for it, and the next use notes it again
    Effect.runFork(Effect.ignore(noteApiKeyUse(this.#sql, id)))
  }
}
