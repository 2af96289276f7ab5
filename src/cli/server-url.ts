// Checks the URL of a server that a command asks over HTTP.
import * as Effect from "effect/Effect"
import { type CommandFailed, usageError } from "./command-failure.ts"

/** Fails if no request could ever be sent to the URL. `what`: how the message calls it; `example`: what to give in its place. */
export const assertServerUrl = (text: string, what: string, example: string): Effect.Effect<void, CommandFailed> => {
  const url = URL.parse(text)
  const isHttp = url?.protocol === "http:" || url?.protocol === "https:"
  if (isHttp && url.username === "" && url.password === "") return Effect.void
  const reason = isHttp ? "has a user or a password, which are not sent" : "is not an http:// or https:// URL"
  return Effect.fail(usageError(`${what} ${reason}`, example))
}
