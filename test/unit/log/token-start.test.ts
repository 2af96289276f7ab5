// Where a position token starts a topic: what counts of it, and what is refused.
import { expect, test } from "vitest"
import * as Effect from "effect/Effect"
import { type LogRecord, OutOfRange } from "../../../src/log/log.ts"
import { positionToken } from "../../../src/log/position-token.ts"
import { countingPositions, TokenRefused, tokenStart } from "../../../src/log/token-start.ts"
import { startAtToken } from "../../../src/runner/start-at-token.ts"

const none = new Set<string>()
const bounds = (start: number, end: number, partitions = 2) =>
  Array.from({ length: partitions }, (_, partition) => ({ partition, start, end }))
const at = (topic: string, partition: number, position: number) => ({ topic, partition, position })
const reasonOf = (found: unknown) => (found instanceof TokenRefused ? [found.reason, found.text] : found)

test("positions in the topic itself count, and without any those in the topics that it is derived from", () => {
  const token = positionToken([at("a", 0, 7), at("b", 1, 9), at("c", 0, 3)])
  expect(countingPositions(token, "a", none)).toEqual([at("a", 0, 7)])
  expect(countingPositions(token, "a", new Set(["b"]))).toEqual([at("a", 0, 7)])
  expect(countingPositions(token, "x", new Set(["b", "c"]))).toEqual([at("b", 1, 9), at("c", 0, 3)])
})

test("of several positions of a partition, as a forged token may have, the last one counts", () => {
  const forged = `p1.${Buffer.from('[["a",0,3],["a",0,8],["a",0,5]]').toString("base64url")}`
  expect(countingPositions(forged, "a", none)).toEqual([at("a", 0, 8)])
})

test("what is no token, names nothing, or is for other topics is refused with the topics that it is for", () => {
  expect(reasonOf(countingPositions("p1.AAAA", "a", none))).toEqual(["no_token", '"p1.AAAA" is no position token'])
  expect(reasonOf(countingPositions(positionToken([]), "a", none))).toEqual([
    "other_topic",
    "the token names no position, and a starts at a token for itself"
  ])
  expect(reasonOf(countingPositions(positionToken([at("b", 0, 1), at("c", 0, 1)]), "a", new Set(["d"])))).toEqual([
    "other_topic",
    'the token is for "b", "c", and a starts at a token for itself or for what it is derived from ("d")'
  ])
  const many = positionToken(Array.from({ length: 400 }, (_, i) => at(`t${i}`, 0, 1)))
  expect((countingPositions(many, "a", none) as TokenRefused).text.length).toBeLessThan(200)
})

test("partitions that the token names start there, at both ends of their bounds, too", () => {
  for (const position of [3, 5, 9])
    expect(tokenStart([at("a", 1, position)], "a", new Map([["a", bounds(3, 9)]]))).toEqual({
      positions: [undefined, position],
      writes: [at("a", 1, position)]
    })
})

test("a position before the start is gone, one behind the end is not there yet, and one of no partition is wrong", () => {
  const of = (partition: number, position: number) =>
    reasonOf(tokenStart([at("a", partition, position)], "a", new Map([["a", bounds(3, 9)]])))
  expect(of(0, 2)).toEqual(["position_gone", "a/0 has positions 3 to 9, and the token is for position 2"])
  expect(of(0, 10)).toEqual(["not_yet", "a/0 has positions 3 to 9, and the token is for position 10"])
  expect(of(2, 5)).toEqual(["unknown_partition", "the token names partition 2 of a, which has 2 partitions"])
})

test("a position of a source that is behind its end is not there yet, and one that is gone passes", () => {
  const of = (position: number) =>
    reasonOf(
      tokenStart(
        [at("s", 0, position)],
        "a",
        new Map([
          ["a", bounds(0, 4)],
          ["s", bounds(3, 9)]
        ])
      )
    )
  expect(of(10)).toEqual(["not_yet", "s/0 has positions 3 to 9, and the token is for position 10"])
  expect(of(1)).toEqual({ positions: [undefined, undefined], writes: [at("s", 0, 1)] })
})

/** A log whose partitions have records at some positions, with their append times, and end behind the last one. */
const logOf = (topics: Readonly<Record<string, ReadonlyArray<Readonly<Record<number, number>>>>>, start = 0) => {
  const boundsOf = (topic: string) =>
    topics[topic]!.map((records, partition) => ({
      partition,
      start,
      end: Math.max(...Object.keys(records).map(Number)) + 1
    }))
  return {
    bounds: (topic: string) => Effect.succeed(boundsOf(topic)),
    read: (topic: string, partition: number, position: number) => {
      const { end } = boundsOf(topic)[partition]!
      if (position < start || position > end)
        return Effect.fail(new OutOfRange({ topic, partition, position, start, end }))
      const found = Object.entries(topics[topic]![partition]!).find(([one]) => Number(one) >= position)
      const records = found === undefined ? [] : [{ position: Number(found[0]), appendedAt: found[1] } as LogRecord]
      return Effect.succeed({ records, next: found === undefined ? end : Number(found[0]) + 1, end })
    }
  }
}
const startOf = (
  log: ReturnType<typeof logOf>,
  token: string,
  topic: string,
  from: ReadonlyArray<string> = [],
  moveGone = false
) =>
  Effect.runPromise(
    startAtToken(log, { token, topic, derivedFrom: new Set(from), waitMs: 0, moveGone }).pipe(
      Effect.match({ onSuccess: (positions) => positions, onFailure: reasonOf })
    )
  )

test("the time of a write is that of the last record before its position, however many were compacted away", async () => {
  const log = logOf({
    a: [
      { 2: 10, 40: 30 },
      { 0: 9, 1: 10, 2: 11 }
    ]
  })
  expect(await startOf(log, positionToken([at("a", 0, 40)]), "a")).toEqual([40, 1])
  expect(await startOf(log, positionToken([at("a", 0, 41)]), "a")).toEqual([41, 3])
})

test("the oldest of several writes decides since when the other partitions are read", async () => {
  const log = logOf({ a: [{ 0: 20 }, { 0: 10 }, { 0: 9, 1: 10, 2: 20 }] })
  expect(await startOf(log, positionToken([at("a", 0, 1), at("a", 1, 1)]), "a")).toEqual([1, 1, 1])
})

test("where the log no longer has the write, a topic starts at its first records, and a derived topic is refused", async () => {
  const log = logOf({ a: [{ 5: 20 }, { 5: 20 }], d: [{ 5: 1 }] }, 5)
  expect(await startOf(log, positionToken([at("a", 0, 5)]), "a")).toEqual([5, 5])
  const [reason, text] = (await startOf(log, positionToken([at("a", 0, 5)]), "d", ["a"])) as [string, string]
  expect([reason, text]).toEqual([
    "position_gone",
    "the log no longer has the write that the token is for, so it is not known what followed in d"
  ])
})

test("a position that retention deleted is refused, or moved to the first record for readers that want it", async () => {
  const log = logOf({ a: [{ 5: 20 }, { 5: 20 }] }, 5)
  const token = positionToken([at("a", 0, 2)])
  expect(await startOf(log, token, "a")).toEqual([
    "position_gone",
    "a/0 has positions 5 to 6, and the token is for position 2"
  ])
  expect(await startOf(log, token, "a", [], true)).toEqual([5, 5])
})
