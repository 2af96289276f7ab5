// Promotes a build and, if asked for, publishes the corrections of what the build before it published.
import * as Effect from "effect/Effect"
import { type Corrected, correctsLastPromotion, publishCorrections } from "./corrections.ts"
import { PromotedWithoutCorrections } from "./errors.ts"
import type { PromoteContext, Promoted, PromoteRequest } from "./promote.ts"

/** What was promoted, if anything was, and which corrections were published, if they were asked for. */
export interface PromotedAndCorrected {
  readonly promoted: Promoted | undefined
  readonly corrections: Corrected | undefined
}

/**
 * Promotes a build, and publishes corrections afterwards if `corrects`. If those of the last promotion are not complete, they alone are published,
 * because those of the next one would replace them. `promoting`: how to promote, as `promote` does.
 */
export const promoteAndCorrect = Effect.fnUntraced(function* <E, R>(
  context: PromoteContext,
  request: PromoteRequest,
  corrects: boolean,
  promoting: (context: PromoteContext, request: PromoteRequest) => Effect.Effect<Promoted, E, R>
) {
  const { name } = request
  const isCorrectingOnly = corrects && (yield* correctsLastPromotion(context.sql, request))
  const promoted = isCorrectingOnly ? undefined : yield* promoting(context, request)
  const corrections = corrects
    ? yield* Effect.mapError(publishCorrections(context, name), (error) =>
        promoted === undefined
          ? error
          : new PromotedWithoutCorrections({
              message: `build ${promoted.to} of ${name} was promoted, and its corrections are not published: ${error.message}`,
              try: `millrace promote ${name} --build ${promoted.to} --publish corrections`
            })
      )
    : undefined
  return { promoted, corrections } satisfies PromotedAndCorrected
})

/** The result as `millrace promote --json` prints it. */
export const promotedJson = (name: string, { corrections, promoted }: PromotedAndCorrected) => ({
  ...(promoted ?? { projection: name, state: "corrected" }),
  ...(corrections && { corrections })
})
