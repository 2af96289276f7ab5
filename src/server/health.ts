// The routes for monitoring: `/healthz` (alive), `/readyz` (ready; the caller decides what that means), `/metrics` and `/status` (the whole system).
import { randomUUID } from "node:crypto"
import type { FastifyInstance } from "fastify"
import { described, flag, object, text } from "./http/json-schema.ts"
import type { Metrics } from "./http/metrics.ts"

/** Whether the process can do its work now. Other fields are returned as they are. */
export interface Readiness {
  readonly ready: boolean
  readonly [detail: string]: unknown
}

/** What the routes return. None of the functions rejects. */
export interface HealthParts {
  readonly ready: () => Promise<Readiness>
  /** The status of the whole system; undefined: there is no route for it. */
  readonly status: (() => Promise<SystemStatus>) | undefined
  /** Metrics in Prometheus' text format beside those of the process. */
  readonly moreMetrics: () => Promise<string>
  readonly metrics: Metrics
}
/** The status of a whole system. Other fields are returned as they are. */
export interface SystemStatus {
  readonly healthy: boolean
  readonly [detail: string]: unknown
}

const readiness = {
  ...object(
    { ready: flag },
    {
      roles: {
        type: "object",
        description: "by role",
        additionalProperties: object({ ready: flag }, { reason: text })
      }
    }
  ),
  additionalProperties: true
}
const systemStatus = { ...object({ healthy: flag }), additionalProperties: true }

/** Adds `/healthz`, `/readyz`, `/metrics` and, if there is a status, `/status`. */
export const health = (app: FastifyInstance, { metrics, moreMetrics, ready, status }: HealthParts): void => {
  // a probe that adds a parameter must not fail: the process would be restarted
  const open = { scope: "open", parameters: "any" } as const
  const operate = { scope: "operate" } as const
  const alive = {
    schema: {
      tags: ["health"],
      summary: "200 while the process is alive",
      security: [],
      response: {
        200: object({ status: { const: "ok" }, instance: described(text, "another one for each start of the process") })
      }
    },
    config: open
  }
  const instance = randomUUID()
  app.get("/healthz", alive, async () => ({ status: "ok", instance }))
  app.get(
    "/readyz",
    {
      schema: {
        tags: ["health"],
        summary: "200 while the process can do its work, else 503 with the reason",
        security: [],
        response: {
          200: described(readiness, "the process can do its work"),
          503: described(readiness, "it cannot, for the reasons")
        }
      },
      config: open
    },
    async (_request, reply) => {
      const readiness = await ready()
      return reply.code(readiness.ready ? 200 : 503).send(readiness)
    }
  )
  app.get(
    "/metrics",
    {
      schema: {
        tags: ["health"],
        summary: "Metrics in Prometheus' text format",
        produces: ["text/plain"],
        response: { 200: described(text, "the metrics") }
      },
      config: operate
    },
    async (_request, reply) =>
      reply.type("text/plain; version=0.0.4; charset=utf-8").send((await metrics.text()) + (await moreMetrics()))
  )
  if (status === undefined) return
  app.get(
    "/status",
    {
      config: operate,
      schema: {
        tags: ["health"],
        summary: "200 while the whole system is healthy, else 503; with what millrace status --json prints",
        response: {
          200: described(systemStatus, "the whole system is healthy"),
          503: described(systemStatus, "it is not, for the reasons in `unhealthy`")
        }
      }
    },
    async (_request, reply) => {
      const found = await status()
      return reply.code(found.healthy ? 200 : 503).send(found)
    }
  )
}
