// What `millrace doctor` finds of one thing, and how a check that fails becomes a finding. Pure.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/** What a check found. */
export interface Check {
  /** What was checked: a word that programs compare, such as `database`. */
  readonly name: string
  readonly ok: boolean
  /** What holds, or what is wrong. */
  readonly message: string
  /** The command or the change that fixes it; null if nothing is to be done. */
  readonly try: string | null
}
/** A check that found nothing wrong. */
export const passed = (name: string, message: string): Check => ({ name, ok: true, message, try: null })
/** A check that found something wrong, and what fixes it. */
export const wrong = (name: string, message: string, advice: string): Check => ({
  name,
  ok: false,
  message,
  try: advice
})

/** How long a check may take, in milliseconds. */
const patienceMs = 20_000

/** The advice in a message of the form `… try: …`, as errors of the database have it. */
const splitAdvice = (text: string): readonly [string, string | undefined] => {
  const at = text.lastIndexOf(" try: ")
  return at < 0 ? [text, undefined] : [text.slice(0, at).replace(/[.;]$/, ""), text.slice(at + 6)]
}

/** Runs a check. Whatever it fails with is what is wrong; `advice` is what to do if the failure does not say so. It ends after 20 seconds. */
export const checked = <E, R>(
  name: string,
  advice: string,
  check: Effect.Effect<Check | ReadonlyArray<Check>, E, R>
): Effect.Effect<ReadonlyArray<Check>, never, R> =>
  check.pipe(
    Effect.timeoutOrElse({
      duration: patienceMs,
      orElse: () => Effect.succeed(wrong(name, `no answer within ${patienceMs / 1000} seconds`, advice))
    }),
    Effect.map((found) => (Array.isArray(found) ? (found as ReadonlyArray<Check>) : [found as Check])),
    Effect.catchCause((cause) => {
      const error = Cause.squash(cause) as { readonly message?: string; readonly try?: string } | undefined
      const [message, own] = splitAdvice(error?.message ?? String(error))
      return Effect.succeed([wrong(name, message, error?.try ?? own ?? advice)])
    })
  )
