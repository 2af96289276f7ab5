// The port of the HTTP server that `--port` or the settings name.
import * as Effect from "effect/Effect"
import { usageError } from "./command-failure.ts"
import { isOfKubernetes } from "./variables.ts"
import { InvalidEnvironment } from "../system/errors.ts"

/** The port in `MILLRACE_HTTP_PORT`; undefined if it is not set. */
export const portSetting = Effect.suspend(() => {
  const text = process.env["MILLRACE_HTTP_PORT"] ?? ""
  // Kubernetes sets it to tcp://… for a service called millrace-http
  if (text === "" || isOfKubernetes("MILLRACE_HTTP_PORT", text)) return Effect.undefined
  return /^\d{1,5}$/.test(text) && Number(text) < 65_536
    ? Effect.succeed(Number(text))
    : Effect.fail(
        new InvalidEnvironment({
          message: `MILLRACE_HTTP_PORT is '${text}'; it must be a port, 0 to 65535`,
          try: "MILLRACE_HTTP_PORT=7070; 0 picks a free port"
        })
      )
})

/** The port of `--port`. Fails with a usage error if the number is no port. */
export const portFlag = (port: number | undefined) =>
  port === undefined || (port >= 0 && port < 65_536)
    ? Effect.succeed(port)
    : Effect.fail(usageError(`--port is ${port}; it must be a port, 0 to 65535`, "--port 7070; 0 picks a free port"))

/** The port of `--port`, else the one in `MILLRACE_HTTP_PORT`; undefined if neither is set. */
export const portOf = (port: number | undefined) =>
  Effect.flatMap(portFlag(port), (given) => (given === undefined ? portSetting : Effect.succeed(given)))
