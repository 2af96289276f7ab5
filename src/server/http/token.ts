// The position token as requests have it: `waitFor`, and the answers of what is not there yet. Pure.
import { parseToken, type TokenPosition } from "../../log/position-token.ts"
import type { TokenRefused } from "../../log/token-start.ts"
import { Problem, retryAfterSeconds } from "./problem.ts"

/** The positions of the token in a parameter. Throws a `Problem` 400 if it is no token. */
export const waitForPositions = (token: string, parameter = "waitFor"): ReadonlyArray<TokenPosition> => {
  const positions = parseToken(token)
  if (positions !== undefined) return positions
  throw new Problem(
    400,
    "invalid_parameter",
    `the parameter ${parameter} is no token`,
    "use the token of an answer to events or commands, as it was"
  )
}

/** Whether a parameter that also takes other texts has a position token. */
export const isToken = (text: string): boolean => text.startsWith("p1.")

/** The problem of a token that asks for more than there is. */
export const notYet = (message: string, advice: string): Problem =>
  new Problem(504, "not_yet", message, advice, retryAfterSeconds)

/** The problem of a token that does not start a stream. */
export const tokenProblem = ({ advice, reason, text }: TokenRefused): Problem => {
  if (reason === "not_yet") return notYet(text, `${advice}: send the request again after Retry-After seconds`)
  if (reason === "position_gone") return new Problem(410, "position_gone", text, advice)
  return new Problem(400, "invalid_parameter", text, advice)
}
