// Thousands of malformed events against the real gateway and the log on PostgreSQL: no event harms another, and what the log has is processed.
import { afterAll, beforeAll, expect, test } from "vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Projection } from "../../../src/index.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { readStatus } from "../../../src/system/status.ts"
import { engine, relay, run, settled, type Engine } from "../../support/engine.ts"
import { json, ndjson, post, recordsOf, reference, start, type Answer, type Server } from "../../support/http.ts"
import { malformedLine, type MalformedLine } from "../../support/malformed.ts"
import { server as postgres } from "../../support/postgres.ts"
import { randomOf, seed } from "../../support/random.ts"
import { isLong } from "../../support/size.ts"
import application from "../../../millrace.config.ts"
import { signals } from "../../../projections/signals.ts"

const scope = Scope.makeUnsafe()
let made: Engine
let server: Server
beforeAll(async () => {
  const opened = Effect.gen(function* () {
    const on = yield* engine(yield* postgres, {
      ...application,
      projections: [Projection.async(signals)],
      services: undefined
    })
    yield* run(on)
    yield* relay(on)
    return on
  })
  made = await Effect.runPromise(Scope.provide(opened, scope))
  server = await start({ application: reference }, made.log)
})
afterAll(async () => {
  await server.stop()
  await Effect.runPromise(Scope.close(scope, Exit.void))
})

const topic = "events.raw.v1"
/** Accepted lines by the position that they got. */
const accepted = new Map<string, MalformedLine>()
const note = ({ body }: Answer, lines: ReadonlyArray<MalformedLine>) => {
  for (const [i, { partition, position, status }] of body.results.entries())
    if (status === "accepted") accepted.set(`${partition}/${position}`, lines[i]!)
}

test(`no malformed event makes a request fail, and each line has its own result (seed ${seed})`, async () => {
  const random = randomOf(seed)
  const requests = isLong ? 400 : 40
  let number = 0
  let rejected = 0
  for (let i = 0; i < requests; i++) {
    const lines = Array.from({ length: random.pick([1, 2, 50, 200]) }, () => malformedLine(random, number++)).filter(
      ({ bytes }) => bytes.toString("utf8").trim() !== ""
    )
    if (lines.length === 0) continue
    const body = Uint8Array.from(Buffer.concat(lines.flatMap(({ bytes }) => [bytes, Buffer.from("\n")])))
    const answer = await post(server, body, { "content-type": random.pick([ndjson, "application/jsonl"]) })
    expect([202, 207, 400, 422], JSON.stringify(answer.body).slice(0, 500)).toContain(answer.status)
    if (answer.body.results === undefined) {
      expect(answer.body.error?.code).toBe("malformed_json")
      continue
    }
    expect(answer.body.results).toHaveLength(lines.length)
    rejected += answer.body.rejected
    note(answer, lines)
  }
  // how many lines there are differs much from seed to seed
  expect(accepted.size).toBeGreaterThan(10)
  expect(rejected).toBeGreaterThan(100)
})

test("single events and arrays of them are answered with 2xx or 4xx", async () => {
  const random = randomOf(seed + 1)
  const count = isLong ? 3_000 : 250
  for (let i = 0; i < count; i++) {
    const line = malformedLine(random, 1_000_000 + i)
    const bytes = random.chance(0.5) ? line.bytes : Buffer.concat([Buffer.from("["), line.bytes, Buffer.from("]")])
    const answer = await post(server, Uint8Array.from(bytes), { "content-type": json })
    expect(
      [202, 207, 400, 413, 422],
      `${bytes.toString("utf8").slice(0, 300)}: ${JSON.stringify(answer.body)}`
    ).toContain(answer.status)
    if (answer.body.results !== undefined)
      note(
        answer,
        answer.body.results.map(() => line)
      )
  }
})

test.each([
  ["an object with a toString that is no function", '{"toString":1}'],
  ["nested objects of that kind", '{"valueOf":{"toString":{"a":[]}}}'],
  ["an array", "[1]"],
  ["a bigger number than any", "1e400"],
  ["a fraction", "1.5"],
  ["a digit too many", "123456789012345678901234567890"],
  ["a text", '"1"'],
  ["null", "null"]
])("a schema_version that is %s is one line's fault", async (_, value) => {
  const line = (id: string, version: string) =>
    `{"type":"payment","event_id":"${id}","entity_id":"e","amount":1,"occurred_at":1735689600000,"tenant":"acme","schema_version":${version}}`
  const body = [line(`v1-${value}`.replaceAll('"', ""), "1"), line("v2", value)]
  for (const [text, type] of [
    [body.join("\n"), ndjson],
    [`[${body.join(",")}]`, json]
  ] as const) {
    const answer = await post(server, text, { "content-type": type })
    expect(answer.status).toBe(207)
    expect(answer.body.results.map(({ error, status }) => error?.code ?? status)).toEqual([
      "accepted",
      "unknown_schema_version"
    ])
  }
  expect((await post(server, line("v3", value))).status).toBe(422)
})

test("what was accepted is in the log once, and is processed or a dead letter; nothing is halted", async () => {
  await Effect.runPromise(settled(made))
  const records = await recordsOf(made.log, topic)
  for (const [position, { bytes, id }] of accepted) {
    const found = records.filter((record) => `${record.partition}/${record.position}` === position)
    expect(found, id).toHaveLength(1)
    expect(bytes.toString("utf8").replaceAll("\r", " "), id).toContain(found[0]!.value)
  }
  const status = await Effect.runPromise(readStatus({ sql: made.sql, log: made.log, targets: ["embedded"] }))
  expect(status.projections.filter(({ halted }) => halted !== null)).toEqual([])
  expect(status.relays.filter(({ halted }) => halted !== null)).toEqual([])
  const [row] = await Effect.runPromise(
    query(
      "count",
      () => made.sql<Array<{ processed: number; dead: number }>>`
        select (select sum(events + duplicates)::int8 from millrace.progress where topic = ${topic}) as processed,
          (select count(*) from millrace.dead_letters where topic = ${topic}) as dead`
    )
  )
  expect(row!.processed + row!.dead).toBe(records.length)
})
