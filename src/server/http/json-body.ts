// Reads the bodies of routes that take JSON alone, as text.
import type { Readable } from "node:stream"
import type { FastifyInstance, FastifyRequest } from "fastify"
import { type BodyMemory, textOf } from "./body.ts"
import type { Limits } from "./limits.ts"
import { mediaTypeOf } from "./parameters.ts"
import { Problem } from "./problem.ts"

/**
 * Lets the routes of `app` take bodies of `application/json`, as `textOf` reads them: `request.body` is the text, and `request.share` its share of the
 * memory, which the routes give back. Other media types get a `Problem` 415, and bodies of more than `mostBytes` one of 413: JSON is parsed in one go.
 */
export const readJsonBodies = (
  app: FastifyInstance,
  { held, limits }: { readonly held: BodyMemory; readonly limits: Limits },
  mostBytes = Infinity
): void => {
  const ownLimits = { ...limits, bodyBytes: Math.min(limits.bodyBytes, mostBytes) }
  app.removeAllContentTypeParsers()
  app.addContentTypeParser("*", async (request: FastifyRequest, payload: Readable) => {
    const type = request.headers["content-type"]
    if (mediaTypeOf(type) !== "application/json")
      throw new Problem(
        415,
        "unsupported_media_type",
        type === undefined ? "the request has no Content-Type" : `Content-Type ${type} is not supported`,
        "send application/json, in UTF-8"
      )
    request.share = held.share()
    return textOf(payload, request.headers, request.share, ownLimits)
  })
}
