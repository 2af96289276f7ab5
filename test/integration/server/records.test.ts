// Pages of records forwards and backwards, the bounded search by key, type, tenant and time, and streams of whole records, over real HTTP.
import * as Effect from "effect/Effect"
import { afterAll, beforeAll, expect, test } from "vitest"
import { partitionOf } from "../../../src/model/partitioner.ts"
import { mostSearched } from "../../../src/server/streams/record-pages.ts"
import { record } from "../../contract/log-support.ts"
import { type Server, get, post, start, stream, transfer } from "../../support/http.ts"
import { webSocket } from "../../support/websocket.ts"

interface Page {
  readonly partition: number
  readonly start: number
  readonly end: number
  readonly next: number
  readonly searched: { readonly from: number; readonly to: number }
  readonly records: ReadonlyArray<{
    readonly position: number
    readonly key: string
    readonly tenant: string
    readonly appended_at: number
    readonly value: { readonly event_id: string; readonly type: string }
  }>
}
let server: Server
const topic = "/v1/topics/events.raw.v1"
const page = async (query: string) => (await get<Page>(`${server.url}${topic}/records?${query}`)).body
const refusal = async (path: string) => {
  const { body, status } = await get(`${server.url}${path}`)
  return [status, body.error.code, body.error.try]
}
const idsOf = ({ records }: Page) => records.map(({ value }) => value.event_id)
/** All pages of a query, one after another: their ids, and the positions that each looked at. */
const pages = async (query: string) => {
  const ids: Array<string> = []
  const searched: Array<Page["searched"]> = []
  let from = ""
  while (true) {
    const found = await page(`${query}${from}`)
    ids.push(...idsOf(found))
    searched.push(found.searched)
    if (found.next === (query.includes("order=desc") ? found.start : found.end)) return { ids, searched }
    expect(`&from=${found.next}`, "a page moves on").not.toBe(from)
    from = `&from=${found.next}`
  }
}
/** Events of one partition: every third is of the key that is looked for. */
const partition = partitionOf("wanted", 12)
const others = Array.from({ length: 2_000 }, (_, i) => `other-${i}`).filter((key) => partitionOf(key, 12) === partition)
const keyAt = (i: number) => (i % 3 === 0 ? "wanted" : others[i % others.length]!)
const count = 300

beforeAll(async () => {
  server = await start()
  const events = Array.from({ length: count }, (_, i) =>
    transfer({ event_id: `e-${i}`, entity_id: keyAt(i), tenant: i % 2 === 0 ? "acme" : "globex" })
  )
  expect((await post(server, JSON.stringify(events))).status).toBe(202)
}, 60_000)
afterAll(() => server.stop())

const wanted = Array.from({ length: count / 3 }, (_, i) => `e-${i * 3}`)

test("records of a key are found in its partition without naming it, forwards and backwards, each once over all pages", async () => {
  expect((await page("key=wanted&limit=1")).partition).toBe(partition)
  expect((await pages("key=wanted&limit=7")).ids).toEqual(wanted)
  expect((await pages("key=wanted&limit=7&order=desc")).ids).toEqual(wanted.toReversed())
  expect((await pages(`partition=${partition}&limit=41&order=desc`)).ids).toEqual(
    Array.from({ length: count }, (_, i) => `e-${count - 1 - i}`)
  )
  // a key that no record has: nothing, and how far it was looked for
  expect(await page("key=nobody")).toMatchObject({ records: [], searched: { from: 0 } })
  // in a partition that is not the key's
  expect((await page(`key=wanted&partition=${(partition + 1) % 12}`)).records).toEqual([])
})

test("pages of a search join without a gap: each begins where the one before stopped looking", async () => {
  for (const order of ["asc", "desc"]) {
    const { searched } = await pages(`key=wanted&limit=7&order=${order}`)
    const spans = order === "asc" ? searched : searched.toReversed()
    expect(spans[0]!.from).toBe(0)
    for (const [i, { from }] of spans.entries()) if (i > 0) expect(from).toBe(spans[i - 1]!.to)
    expect(spans.at(-1)!.to).toBe(count)
  }
})

test("events of a type and of a tenant are found alone, and a type that no event has is refused", async () => {
  const acme = await pages("key=wanted&tenant=acme&type=transfer")
  expect(acme.ids).toEqual(wanted.filter((_, i) => i % 2 === 0))
  expect(await refusal(`${topic}/records?type=transfr`)).toEqual([
    400,
    "invalid_parameter",
    expect.stringContaining("transfer")
  ])
  expect((await refusal("/v1/topics/alerts.v1/records?type=x"))[0]).toBe(400)
  expect(await refusal(`${topic}/records?order=up`)).toEqual([400, "invalid_parameter", "use asc or desc"])
})

test("a page begins at a time, or ends before it", async () => {
  const all = await page(`partition=${partition}&limit=1000`)
  const at = all.records[0]!.appended_at
  const time = (ms: number) => new Date(ms).toISOString()
  expect((await page(`partition=${partition}&from=${time(at)}&limit=1000`)).records).toHaveLength(count)
  expect((await page(`partition=${partition}&from=${time(at + 60_000)}`)).records).toEqual([])
  expect((await page(`partition=${partition}&order=desc&from=${time(at)}`)).records).toEqual([])
  expect((await page(`partition=${partition}&order=desc&from=${time(at + 60_000)}&limit=1`)).records[0]!.position).toBe(
    count - 1
  )
})

test("a search stops after so many positions, and says how far it looked", async () => {
  const key = "needle"
  const at = partitionOf(key, 12)
  const { end } = await page(`partition=${at}&limit=1`)
  const hay = Array.from({ length: mostSearched.positions + 10_000 }, (_, i) =>
    record({ partition: at, key: `hay-${i}`, eventTime: 0 })
  )
  await Effect.runPromise(server.log.append("events.raw.v1", [...hay, record({ partition: at, key, eventTime: 0 })]))
  const forwards = await page(`key=${key}&from=${end}`)
  expect(forwards.records).toEqual([])
  expect(forwards.searched.from).toBe(end)
  expect(forwards.next).toBe(forwards.searched.to)
  // not all at once, however fast the machine is
  expect(forwards.next).toBeLessThan(forwards.end)
  let { next } = forwards
  let found = forwards
  while (found.records.length === 0) {
    found = await page(`key=${key}&from=${next}`)
    expect(found.next).toBeGreaterThan(next)
    next = found.next
  }
  expect(found.records[0]!.key).toBe(key)
  // from the other end it is the first
  expect((await page(`key=${key}&order=desc&limit=1`)).records[0]!.position).toBe(end + hay.length)
}, 30_000)

test("with envelope=record a stream has whole records: key, position, headers, tenant and value, by both protocols", async () => {
  const path = `${topic}/stream?from=earliest&key=wanted&envelope=record`
  const streamed = await stream(`${server.url}${path}`)
  const [first] = await streamed.records(1)
  streamed.close()
  const record = JSON.parse(first!.data!) as Record<string, unknown>
  expect(record).toMatchObject({
    partition,
    position: 0,
    key: "wanted",
    tenant: "acme",
    event_id: "e-0",
    headers: {},
    value: { type: "transfer", event_id: "e-0" }
  })
  expect(record["appended_at"]).toBeGreaterThan(0)
  // all records of the topic come after it, whether the filter lets them through or not
  expect(record["waiting"]).toBeGreaterThanOrEqual(count - 1)
  const socket = await webSocket(server.url + path)
  const [message] = await socket.records(1)
  expect(message!.data).toMatchObject({ key: "wanted", position: 0, tenant: "acme" })
  socket.close()
  // without it the value alone, as before
  const plain = await stream(`${server.url}${topic}/stream?from=earliest&key=wanted`)
  expect(JSON.parse((await plain.records(1))[0]!.data!)).toMatchObject({ event_id: "e-0", entity_id: "wanted" })
  plain.close()
  expect((await refusal(`${topic}/stream?envelope=all`)).slice(0, 2)).toEqual([400, "invalid_parameter"])
})
