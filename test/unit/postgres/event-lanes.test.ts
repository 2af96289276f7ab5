// Which waiting commands go into one statement of the event store.
import { expect, test } from "vitest"
import type { AppendRow } from "../../../src/postgres/events/append-sql.ts"
import { Lanes, takeStatement } from "../../../src/postgres/events/lanes.ts"

const command = (
  stream: string,
  expected: number,
  commandId: string,
  { partition = 0, vals = "" }: { readonly partition?: number; readonly vals?: string } = {}
): { readonly row: AppendRow } => ({
  row: {
    topicId: 1,
    topic: "t",
    stream,
    partition,
    expected,
    commandId,
    digest: null,
    follows: null,
    records: 2,
    bytes: 0,
    meta: "",
    vals,
    tags: [],
    logRecords: [],
    timer: null,
    keys: [],
    segmentMeta: () => ""
  }
})
/** The indexes of the commands that are taken, and of those that wait. */
const taken = (...queue: ReadonlyArray<ReturnType<typeof command>>) => {
  const statement = takeStatement(queue)
  return [statement.taken, statement.rest].map((list) => list.map((one) => queue.indexOf(one)))
}

test("commands of one stream follow one another if each expects what the one before leaves; others wait, and so do those after them", () => {
  expect(taken(command("a", 0, "1"), command("b", 7, "2"), command("a", 2, "3"))).toEqual([[0, 1, 2], []])
  expect(taken(command("a", 0, "1"), command("a", 3, "2"), command("a", 2, "3"))).toEqual([[0], [1, 2]])
  expect(taken(command("a", -1, "1"), command("a", -1, "2"), command("a", -2, "3"))).toEqual([[0, 1], [2]])
})
test("a command that is sent twice waits for the answer to the first", () => {
  expect(taken(command("a", -1, "1"), command("a", -1, "1"), command("b", -1, "1"))).toEqual([[0, 2], [1]])
  expect(taken(command("a", -1, "1"), command("a", -1, "2"), command("a", -1, "1"))).toEqual([[0, 1], [2]])
})
test("a statement takes at most 200 commands, and no more after 4 MiB of values", () => {
  const many = Array.from({ length: 300 }, (_, i) => command(`s${i}`, -1, String(i)))
  expect(taken(...many).map(({ length }) => length)).toEqual([200, 100])
  const large = Array.from({ length: 3 }, (_, i) => command(`s${i}`, -1, String(i), { vals: "x".repeat(3 << 20) }))
  expect(taken(...large)).toEqual([[0, 1], [2]])
})

/** Lanes whose statements are answered when the test says so. `sent`: the ids of the commands of each statement. */
const lanesInTest = () => {
  const sent: Array<ReadonlyArray<string>> = []
  const answers: Array<() => void> = []
  const lanes = new Lanes((commands: ReadonlyArray<{ readonly row: AppendRow }>) => {
    sent.push(commands.map(({ row }) => row.commandId))
    return new Promise((resolve) => void answers.push(resolve))
  })
  const add = (partition: number, ...ids: ReadonlyArray<string>) => {
    for (const id of ids) lanes.add(command(id, -1, id, { partition }))
  }
  /** Answers a statement, and waits until what follows it is sent. */
  const answer = async (statement: number) => {
    answers[statement]!()
    await new Promise((resolve) => void setImmediate(resolve))
  }
  return { add, answer, lanes, sent }
}
const idsOf = (prefix: string, count: number) => Array.from({ length: count }, (_, i) => `${prefix}${i}`)

test("few commands share the statement of two lanes, and the next one takes those that waited meanwhile", async () => {
  const { add, answer, lanes, sent } = lanesInTest()
  add(0, "a", "b")
  add(2, "c")
  add(1, "d")
  await Promise.resolve()
  expect(sent).toEqual([["a", "b", "c"], ["d"]])
  add(4, "e")
  add(6, "f")
  await answer(1)
  expect(sent).toHaveLength(2)
  await answer(0)
  expect(sent.slice(2)).toEqual([["e", "f"]])
  expect(lanes.waiting()).toBe(0)
})
test("a lane in which many commands wait has a statement of its own, also while that of the other lane is under way", async () => {
  const { add, answer, sent } = lanesInTest()
  add(0, ...idsOf("a", 50))
  add(2, "b")
  await Promise.resolve()
  expect(sent.map(({ length }) => length)).toEqual([50, 1])
  add(2, "c")
  await answer(1)
  // it waits for the other lane's, to share the next one
  expect(sent).toHaveLength(2)
  add(2, ...idsOf("d", 49))
  await Promise.resolve()
  expect(sent[2]).toEqual(["c", ...idsOf("d", 49)])
  await answer(2)
  add(0, "e")
  add(2, "f")
  await answer(0)
  expect(sent.slice(3)).toEqual([["e", "f"]])
})
test("what does not fit into a statement stays in its lane", async () => {
  const { add, answer, lanes, sent } = lanesInTest()
  add(0, "first")
  await Promise.resolve()
  for (const id of idsOf("x", 3)) lanes.add(command("one", -1, "twice", { partition: 2, vals: id }))
  add(0, "second")
  await answer(0)
  expect(sent[1]).toEqual(["second", "twice"])
  expect(lanes.waiting()).toBe(2)
  await answer(1)
  await answer(2)
  expect(sent.slice(2)).toEqual([["twice"], ["twice"]])
})
