// Time marks in a topic: HTTP streams, pages of the log, lookups and Pulsar's messages leave them out.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { expect, test } from "vitest"
import { Projection, Topic, Application } from "../../../src/index.ts"
import { specOf, type NewRecord } from "../../../src/log/log.ts"
import { make } from "../../../src/memory/log.ts"
import { messagesOf } from "../../../src/pulsar/relay/messages.ts"
import { LookupTable } from "../../../src/runner/lookup-tables.ts"
import { start, reference } from "../../support/http.ts"

const one = { id: Schema.String }
const derived = Topic.records("derived", { value: one, key: "id", partitions: 1 })
const source = Topic.records("source", { value: one, key: "id", partitions: 1 })
const latest = Topic.compacted("derived", { value: one, key: "id", partitions: 1 })
const publishing = Projection.make({ name: "p", version: 1, source, writes: [derived], handle: () => undefined })
const application = Application.make({ name: "marks", projections: [Projection.async(publishing)] })

const message = (id: string): NewRecord => ({
  partition: 0,
  key: id,
  value: JSON.stringify({ id }),
  eventTime: 1,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: undefined,
  headers: { "millrace-stream": "p/source/0", "millrace-seq": "1" }
})
const mark = (key: string | null): NewRecord => ({
  ...message(""),
  key,
  value: null,
  headers: { "millrace-stream": "p/source/0", "millrace-seq": "2", "millrace-time": "5" }
})
const records = [mark(null), message("a"), mark("millrace-time p/source/0"), mark(null), message("b"), mark(null)]
const filled = async () => {
  const { log } = make()
  await Effect.runPromise(log.declare([specOf(derived), specOf(source)]))
  await Effect.runPromise(log.append(derived.name, records))
  return log
}

interface Page {
  readonly records: ReadonlyArray<{ readonly key: string }>
  readonly next: number
  readonly end: number
}
const pageOf = async (url: string) => (await (await fetch(url)).json()) as Page

test("HTTP streams and pages of a topic leave time marks out, and a page goes on behind them", async () => {
  const server = await start({ application: application as unknown as typeof reference }, await filled())
  try {
    const page = await pageOf(`${server.url}/v1/topics/derived/records?limit=1`)
    expect([page.records.map(({ key }) => key), page.next]).toEqual([["a"], 4])
    const rest = await pageOf(`${server.url}/v1/topics/derived/records?from=${page.next}`)
    expect([rest.records.map(({ key }) => key), rest.next, rest.end]).toEqual([["b"], 6, 6])
    const stream = await fetch(`${server.url}/v1/topics/derived/stream?from=earliest`)
    let text = ""
    for await (const chunk of stream.body!) {
      text += Buffer.from(chunk).toString()
      if (text.includes('"id":"b"')) break
    }
    expect(text.match(/^event: record$/gm)).toHaveLength(2)
    expect(text).not.toContain("millrace-time")
  } finally {
    await server.stop()
  }
})

test("lookups have no values of time marks, and park none of them", async () => {
  const log = await filled()
  const parked: Array<unknown> = []
  const table = new LookupTable(log, latest)
  table.addReader("p", (_, deadLetter) => Effect.sync(() => void parked.push(deadLetter)))
  await Effect.runPromise(table.catchUp)
  expect([table.get("a"), table.get("b"), parked]).toEqual([{ id: "a" }, { id: "b" }, []])
})

test("time marks are not sent to Pulsar, and deletions still are", () => {
  const bytes = (text: string) => new TextEncoder().encode(text)
  const meta =
    '[["a",1],[null,5,null,null,null,null,{"millrace-time":"5"}],["b",1,null,null,null,null,{"millrace-time":""}],["c",1]]'
  const segment = {
    firstSeq: 7,
    messages: 4,
    incarnation: "i",
    topic: "derived",
    partition: 0,
    meta: bytes(meta),
    vals: bytes("{}\n\n{}\n")
  }
  const found = messagesOf(segment, "p/source/0", { tenant: "t", namespace: "n", topicFor: undefined })
  expect(found.map(({ key, seq, value }) => [seq, key, value])).toEqual([
    [7, "a", "{}"],
    [9, "b", "{}"],
    [10, "c", ""]
  ])
})
