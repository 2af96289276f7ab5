// Whether a server could listen at a port.
import { createServer } from "node:net"
import * as Effect from "effect/Effect"
import { ListenFailed, PortInUse } from "./errors.ts"

/** The error of a server that could not listen. */
export const listenError = (host: string, port: number, cause: unknown): PortInUse | ListenFailed =>
  (cause as { readonly code?: string }).code === "EADDRINUSE"
    ? new PortInUse({ host, port })
    : new ListenFailed({ host, port, cause })

/** Fails with what a server that listens there would fail with, so that nothing else is started first. Port 0 is always free. */
export const assertPortFree = ({
  host,
  port
}: {
  readonly host: string
  readonly port: number
}): Effect.Effect<void, PortInUse | ListenFailed> =>
  port === 0
    ? Effect.void
    : Effect.callback((resume) => {
        const server = createServer()
        server.once("error", (cause) => resume(Effect.fail(listenError(host, port, cause))))
        server.listen({ host, port }, () => server.close(() => resume(Effect.void)))
      })
