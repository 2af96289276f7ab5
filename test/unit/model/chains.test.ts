// Which derived topics feed projections of the same application, and by which streams.
import * as Schema from "effect/Schema"
import { expect, test } from "vitest"
import { Agg, Projection, Topic, Window } from "../../../src/index.ts"
import { chainsOf, longestChain } from "../../../src/model/chains.ts"

const topic = <const Name extends string>(name: Name) =>
  Topic.records(name, { value: { id: Schema.String }, key: "id", partitions: 2 })
const [t, d, e, other] = [topic("t"), topic("d"), topic("e"), topic("other")]
type AnyTopic = Topic<string, { readonly id: string }>
const projection = (name: string, from: ReadonlyArray<AnyTopic>, to: ReadonlyArray<AnyTopic>, version = 1) =>
  Projection.make({ name, version, source: from as never, writes: to, handle: () => undefined }) as Projection.Any
const feedsOf = (...projections: ReadonlyArray<Projection.Any>) =>
  Object.fromEntries(
    [...chainsOf(projections).feeds].map(([name, feeds]) => [name, feeds.map((feed) => Object.values(feed).join("/"))])
  )

test("a derived topic that no projection reads has no feeds", () => {
  expect(feedsOf(projection("a", [t], [d]))).toEqual({})
  expect([...chainsOf([projection("a", [t], [d])]).published]).toEqual(["d", "t.a.dlq"])
})
test("each source of each projection that publishes to a topic feeds it", () => {
  const read = projection("b", [d], [])
  expect(feedsOf(projection("a", [t, other], [d]), projection("c", [t], [d]), read)).toEqual({
    d: ["a/t", "a/other", "c/t"]
  })
})
test("windows feed the topics that they publish to", () => {
  const window = Window.tumbling("w", {
    size: "1 day",
    key: { id: Schema.String },
    aggregate: { n: Agg.count },
    publish: "changes"
  })
  const first = Projection.make({ name: "a", version: 1, source: t, writes: [window], handle: () => undefined })
  expect(feedsOf(first as Projection.Any, projection("b", [topic("changes")], []))).toEqual({ changes: ["a/t"] })
})
test("of several versions of a projection the lowest counts, for the others publish nothing", () => {
  const versions = [projection("a", [t, other], [d], 2), projection("a", [t], [d], 1)]
  expect(feedsOf(...versions, projection("b", [d], []))).toEqual({ d: ["a/t"] })
})
test("a stream that is derived from the topic itself is no feed of it", () => {
  expect(feedsOf(projection("a", [t, d], [d]))).toEqual({ d: ["a/t"] })
  expect(feedsOf(projection("a", [t, e], [d]), projection("b", [d], [e]))).toEqual({ d: ["a/t"] })
  expect(feedsOf(projection("a", [d], [d]))).toEqual({})
})
test("the longest chain counts projections that read what another one publishes", () => {
  const links = [projection("a", [t], [d]), projection("b", [d], [e]), projection("c", [e, d], [])]
  expect(links.map((_, i) => longestChain(chainsOf(links.slice(0, i + 1))))).toEqual([0, 1, 2])
  expect(longestChain(chainsOf([projection("a", [t, e], [d]), projection("b", [d], [e])]))).toBeLessThan(3)
})
