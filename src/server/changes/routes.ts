// The route that follows a view: `GET /v1/views/NAME/changes`, by server-sent events or a WebSocket.
import type { FastifyInstance } from "fastify"
import type { StreamAdder } from "../connection/routes.ts"
import { headerText } from "../http/parameters.ts"
import { type ChangeParts, changeOpener } from "./opener.ts"

/** How often journals that nobody follows are ended, in milliseconds. */
const tidyMs = 60_000

/** Adds `GET /v1/views/:name/changes`, by `add`. Open streams end when the server closes. */
export const changes = (app: FastifyInstance, parts: ChangeParts & { readonly add: StreamAdder }): void => {
  const { follow, open } = changeOpener(parts)
  const tidy = setInterval(() => void parts.source.tidy().catch(() => undefined), tidyMs).unref()
  app.addHook("onClose", async () => clearInterval(tidy))
  parts.add({
    url: "/v1/views/:name/changes",
    schema: { hide: true },
    open: (request) =>
      open({
        name: (request.params as { readonly name: string }).name,
        query: request.query as Readonly<Record<string, unknown>>,
        last: headerText(request.headers, "last-event-id"),
        principal: request.principal,
        isGone: () => request.raw.destroyed
      }),
    stream: follow
  })
}
