// The position token as requests have it: `waitFor`, and the answers of what is not there yet. Pure.
import { parseToken, type TokenPosition } from "../../log/position-token.ts"
import { Problem, retryAfterSeconds } from "./problem.ts"

/** The positions of the token in the parameter waitFor. Throws a `Problem` 400 if it is no token. */
export const waitForPositions = (token: string): ReadonlyArray<TokenPosition> => {
  const positions = parseToken(token)
  if (positions !== undefined) return positions
  throw new Problem(
    400,
    "invalid_parameter",
    "the parameter waitFor is no token",
    "use the token of an answer to events or commands, as it was"
  )
}

/** The problem of a token that asks for more than there is. */
export const notYet = (message: string, advice: string): Problem =>
  new Problem(504, "not_yet", message, advice, retryAfterSeconds)
