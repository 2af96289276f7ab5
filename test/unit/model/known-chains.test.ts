// The streams that feed derived topics by what a database has of builds: which are there from the start, and which join or have ended.
import * as Schema from "effect/Schema"
import { expect, test } from "vitest"
import { streamHeaders } from "../../../src/log/envelope.ts"
import { endOfStream, timeHeader } from "../../../src/log/time-mark.ts"
import { Projection, Topic } from "../../../src/index.ts"
import { type BuildTopics, chainsOf } from "../../../src/model/chains.ts"
import { DerivedTime, type FeedStreams } from "../../../src/runner/derived-time.ts"

const topic = (name: string) => Topic.records(name, { value: { id: Schema.String }, key: "id", partitions: 1 })
const projection = (name: string, from: string, to: ReadonlyArray<string>) =>
  Projection.make({
    name,
    version: 1,
    source: topic(from),
    writes: to.map(topic),
    handle: () => undefined
  }) as Projection.Any
const build = (...reads: ReadonlyArray<string>): BuildTopics => ({ projection: "p", reads, writes: ["d"] })
const feeds = (first: BuildTopics, live: BuildTopics, ...others: ReadonlyArray<BuildTopics>) =>
  chainsOf(
    [projection("p", "a", ["d"]), projection("r", "d", [])],
    new Map([["p", { first, live, all: [first, live, ...others] }]])
  ).feeds.get("d")

test("the live build's sources feed its topics, also where the configuration has another version only", () => {
  expect(feeds(build("b"), build("b"))).toEqual([{ projection: "p", source: "b" }])
})
test("streams of a source that a promotion added, or that a build reads which is not live, hold nothing before they announce", () => {
  expect(feeds(build("a"), build("a", "b"), build("c"))).toEqual([
    { projection: "p", source: "a" },
    { projection: "p", source: "b", joins: true },
    { projection: "p", source: "c", joins: true }
  ])
  expect(feeds(build("a"), build("b"))).toEqual([
    { projection: "p", source: "b", joins: true },
    { projection: "p", source: "a", joins: true }
  ])
})

const record = (stream: string, time: number) => ({
  position: 0,
  key: null,
  value: null,
  eventTime: 0,
  appendedAt: 1_000_000,
  headers: { [streamHeaders.stream]: stream, [timeHeader]: String(time) }
})
const derived = (...streams: ReadonlyArray<FeedStreams>) => new DerivedTime(undefined, undefined, streams)
const marked = (time: DerivedTime, stream: string, at: number) => {
  time.mark(record(stream, at) as never)
  return time.current
}

test("a stream that joins holds the time from its first announcement on, and never moves it back", () => {
  const time = derived({ name: "p/a", partitions: 1 }, { name: "p/b", partitions: 1, joins: true })
  expect(marked(time, "p/a/0", 500)).toBe(500)
  expect(marked(time, "p/b/0", 300)).toBe(500)
  expect(marked(time, "p/a/0", 900)).toBe(500)
  expect(marked(time, "p/b/0", 800)).toBe(800)
})
test("a stream that ended holds nothing, nor moves the time to its end; one that goes on after its end holds it again", () => {
  const time = derived({ name: "p/a", partitions: 1 }, { name: "p/b", partitions: 1 })
  marked(time, "p/a/0", 500)
  expect(marked(time, "p/b/0", 400)).toBe(400)
  expect(marked(time, "p/b/0", endOfStream)).toBe(500)
  expect(marked(time, "p/a/0", 700)).toBe(700)
  marked(time, "p/b/0", 600)
  expect(marked(time, "p/a/0", 900)).toBe(700)
  expect(marked(time, "p/b/0", 800)).toBe(800)
  marked(time, "p/a/0", endOfStream)
  expect(marked(time, "p/b/0", endOfStream)).toBe(800)
})
