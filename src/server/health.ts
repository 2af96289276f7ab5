// The routes for monitoring: `/healthz` (alive), `/readyz` (ready; the caller decides what that means) and `/metrics`.
import type { FastifyInstance } from "fastify"
import type { Metrics } from "./http/metrics.ts"

/** Whether the process can do its work now. Other fields are returned as they are. */
export interface Readiness {
  readonly ready: boolean
  readonly [detail: string]: unknown
}

/** Adds `/healthz`, `/readyz` and `/metrics`. `ready` never rejects. */
export const health = (app: FastifyInstance, ready: () => Promise<Readiness>, metrics: Metrics): void => {
  app.get("/healthz", { schema: { tags: ["health"], summary: "200 while the process is alive" } }, async () => ({
    status: "ok"
  }))
  app.get(
    "/readyz",
    {
      schema: { tags: ["health"], summary: "200 while the process can do its work, else 503 with the reason" }
    },
    async (_request, reply) => {
      const readiness = await ready()
      return reply.code(readiness.ready ? 200 : 503).send(readiness)
    }
  )
  app.get(
    "/metrics",
    { schema: { tags: ["health"], summary: "Metrics in Prometheus' text format" } },
    async (_request, reply) => reply.type("text/plain; version=0.0.4; charset=utf-8").send(await metrics.text())
  )
}
