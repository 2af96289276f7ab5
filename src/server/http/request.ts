// What the server keeps with a request: its trace, and its share of the memory for bodies.
import type { FastifyRequest } from "fastify"
import type { BodyShare } from "./body.ts"
import { traceOf, type Trace } from "./trace.ts"

declare module "fastify" {
  interface FastifyRequest {
    /** The share of this request's body in the memory for all bodies; null if it has no body. */
    share: BodyShare | null
    /** The trace of this request; null until it is first used. */
    trace: Trace | null
  }
}

/** The trace of a request; continued or started at the first call. */
export const traceFor = (request: FastifyRequest): Trace => (request.trace ??= traceOf(request.headers.traceparent))
