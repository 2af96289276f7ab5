// What the server keeps with a request: its trace, and its share of the room for bodies.
import type { FastifyRequest } from "fastify"
import type { Share } from "./body.ts"
import { traceOf, type Trace } from "./trace.ts"

declare module "fastify" {
  interface FastifyRequest {
    /** What this request's body holds of the room for all bodies; null where it has none. */
    share: Share | null
    /** The trace that this request belongs to; null until it is asked for. */
    trace: Trace | null
  }
}

/** The request's trace, continued or begun once. */
export const traceFor = (request: FastifyRequest): Trace => (request.trace ??= traceOf(request.headers.traceparent))
