// The table of the kinds of dead letters. A further kind is one more entry.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { kafkaOptions, pulsarOptions } from "../environment.ts"
import { InvalidEnvironment } from "../errors.ts"
import { openDeadLetterTopics, openParkedSender } from "../open-dead-letters.ts"
import { projectionDeadLetters } from "./projections.ts"
import { relayDeadLetters } from "./relays.ts"
import type { DeadLetterFilter, DeadLettersContext, DeadLetterSource } from "./source.ts"
import { subscriptionDeadLetters } from "./subscriptions.ts"

/** The filters that not all kinds have. A selection with one of them leaves out the kinds that do not have it. */
export const kindFilters = [
  "projection",
  "build",
  "subscription",
  "target",
  "bridge",
  "rule"
] as const satisfies ReadonlyArray<keyof DeadLetterFilter>

interface Kind {
  /** What ids look like. No id looks like that of two kinds. */
  readonly idPattern: RegExp
  readonly filters: ReadonlyArray<(typeof kindFilters)[number]>
  /**
   * Opens the kind's dead letters. Undefined if the environment has nothing that could have dead letters of this kind. `isAskedFor`: the selection
   * has an id, a kind or one of `kindFilters`, so the kind is not just one of all.
   */
  readonly open: (
    context: DeadLettersContext,
    isAskedFor: boolean
  ) => Effect.Effect<DeadLetterSource | undefined, Error, Scope.Scope>
}

/** The kinds, in the order in which they are listed and retried. */
export const kinds = {
  projection: {
    idPattern: /^\d{1,15}$/,
    filters: ["projection", "build"],
    open: (context) => Effect.succeed(projectionDeadLetters(context))
  },
  subscription: {
    idPattern: /@\d+:[^@]*$/,
    filters: ["subscription"],
    open: ({ sql }) =>
      Effect.map(openDeadLetterTopics(sql), (topics) =>
        topics === undefined ? undefined : subscriptionDeadLetters(sql, topics)
      )
  },
  relay: {
    idPattern: /^relay:\d{1,15}$/,
    filters: ["projection", "target"],
    open: ({ sql }) => Effect.succeed(relayDeadLetters(sql, openParkedSender))
  },
  bridge: {
    idPattern: /@[0-9a-f]{16}$/,
    filters: ["bridge", "rule"],
    open: Effect.fnUntraced(function* (context, isAskedFor) {
      if ((yield* kafkaOptions) === undefined && (yield* pulsarOptions) === undefined) {
        if (!isAskedFor) return undefined
        return yield* new InvalidEnvironment({
          message: "bridges have no dead letters here: neither Kafka nor Pulsar is configured",
          try: "set MILLRACE_KAFKA_BROKERS, MILLRACE_PULSAR_URL or both, as for millrace bridge"
        })
      }
      // the code of both brokers' clients is loaded only where there can be a bridge: that holds the process up
      const { openBridgeDeadLetters } = yield* Effect.promise(() => import("./bridges.ts"))
      return yield* openBridgeDeadLetters(context, isAskedFor)
    })
  }
} as const satisfies Readonly<Record<string, Kind>>

/** The name of a kind. */
export type DeadLetterKind = keyof typeof kinds
export const kindNames = Object.keys(kinds) as ReadonlyArray<DeadLetterKind>
