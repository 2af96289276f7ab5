// A connected Pulsar cluster: the transport that its URL names, and its admin interface.
import { createPrivateKey, X509Certificate } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Admin, orUndefined } from "./admin.ts"
import { failureOf, PulsarFailure } from "./errors.ts"
import { native } from "./native.ts"
import { adminUrlOf, isWebSocket, type PulsarOptions } from "./options.ts"
import type { Transport } from "./transport.ts"
import { webSocket } from "./websocket.ts"

/** A cluster that this process is connected to. */
export interface Cluster {
  readonly options: PulsarOptions
  readonly transport: Transport
  /** Undefined if its URL is not known. */
  readonly admin: Admin | undefined
}

/** Throws if the key does not belong to the certificate. Runtimes report this in different words, or blame the broker. */
const assertKey = ({ tls }: PulsarOptions): void => {
  if (tls?.cert === undefined || tls.key === undefined) return
  if (new X509Certificate(tls.cert).checkPrivateKey(createPrivateKey(tls.key))) return
  const reason =
    "the client's key does not belong to its certificate: correct MILLRACE_PULSAR_TLS_CERT and _KEY, which are created together"
  throw new PulsarFailure("unauthenticated", false, reason)
}

/** Opens the transport that the URL names until the scope closes. Fails if the URL needs the native client and that cannot be loaded. */
export const connect = (options: PulsarOptions): Effect.Effect<Cluster, PulsarFailure, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        assertKey(options)
        const admin = adminUrlOf(options) === undefined ? undefined : new Admin(options)
        // a WebSocket URL implies the admin interface's URL
        const transport = isWebSocket(options.url) ? webSocket(options, admin!) : await native(options)
        return { options, transport, admin }
      },
      catch: (cause) => failureOf(cause, "connect")
    }),
    ({ transport }) => Effect.promise(() => transport.close())
  )

/** The admin interface of a cluster. Throws a `PulsarFailure` if its URL is not known. */
export const adminOf = ({ admin, options }: Cluster): Admin => admin ?? new Admin(options)

/**
 * How many partitions a topic has; 0 if it is not partitioned. Undefined if it does not exist; without the admin interface that cannot be
 * distinguished, and is 0.
 */
export const partitionCount = async ({ admin, transport }: Cluster, topic: string): Promise<number | undefined> =>
  admin === undefined ? transport.partitions?.(topic) : orUndefined(admin.partitions(topic))
