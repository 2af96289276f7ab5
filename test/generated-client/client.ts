// A client of the reference application, typed by what a generator makes of its /openapi.json. Prints what it got as JSON.
// It is compiled with the generated types beside it, so not with the project: `types.ts` is there in the test only.
import createClient from "openapi-fetch"
import type { paths } from "./types.ts"

const [, , baseUrl = ""] = process.argv
const client = createClient<paths>({ baseUrl })
/** The data of an answer that must be there. */
const dataOf = <A>({ data, error }: { readonly data?: A; readonly error?: unknown }): A => {
  if (data === undefined) throw new Error(`refused: ${JSON.stringify(error)}`)
  return data
}
const path = { id: "alert-1" }
const of = { entity_id: "N14228", tenant: "acme" }

// events, and values of a topic without event types
const lookup = { entity_id: of.entity_id, risk_weight: 2, threshold: 100, segment: "Boeing" }
dataOf(await client.POST("/v1/events", { params: { query: { topic: "features.entity.v1" } }, body: lookup }))
const event = { type: "transfer", event_id: "t-1", amount: 80, occurred_at: 1_357_035_420_000, ...of } as const
const sent = dataOf(await client.POST("/v1/events", { body: [event] }))
// a field with another type does not compile, and is rejected
// @ts-expect-error amount is a number
const wrong = await client.POST("/v1/events", { body: [{ ...event, amount: "80" }] })
// an unknown parameter does not compile, and is refused
// @ts-expect-error alerts has no column wheels
const unknown = await client.GET("/v1/views/alerts", { params: { query: { "wheels.gt": "4" } } })

// a view, with what follows from the events
const query = { waitFor: sent.token ?? "", "score.gte": "100", order: "score.desc" }
const alerts = dataOf(await client.GET("/v1/views/alerts", { params: { query } }))
const scores: ReadonlyArray<number | null> = alerts.rows.map(({ score }) => score)

// commands
const header = { "Idempotency-Key": "open-1" }
const body = { at: 1_357_035_420_000, entity_id: of.entity_id, score: 160 }
const open = "/v1/aggregates/alert-case/{id}/commands/open"
const opened = dataOf(await client.POST(open, { params: { path, header }, body }))
const repeated = dataOf(await client.POST(open, { params: { path, header }, body }))
const rejected = await client.POST(open, { params: { path }, body })
const state = dataOf(await client.GET("/v1/aggregates/alert-case/{id}", { params: { path } }))

// what the log and the system say of it
const page = {
  path: { topic: "events.raw.v1" },
  query: { partition: sent.results[0]?.status === "accepted" ? sent.results[0].partition : -1 }
}
const { records } = dataOf(await client.GET("/v1/topics/{topic}/records", { params: page }))
const { topics } = dataOf(await client.GET("/v1/topics"))
const { healthy } = dataOf(await client.GET("/v1/operations/status"))
const { ready } = dataOf(await client.GET("/readyz"))
const { projections } = dataOf(await client.GET("/v1/operations/projections"))
const found = {
  accepted: sent.accepted,
  wrong: [wrong.response.status, wrong.error],
  unknown: [unknown.response.status, unknown.error?.error.code],
  scores,
  opened: [opened.version, opened.repeated],
  repeated: [repeated.version, repeated.repeated],
  rejected: [rejected.response.status, rejected.error && "title" in rejected.error ? rejected.error.title : undefined],
  state: state.state,
  records: records.map(({ event_id }) => event_id),
  topics: topics.filter(({ compacted }) => compacted).map(({ name }) => name),
  healthy,
  ready,
  live: projections.map(({ live, name }) => [name, live])
}
process.stdout.write(`${JSON.stringify(found)}\n`)
