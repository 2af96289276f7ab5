// Which waiting commands go into one statement of the event store.
import { expect, test } from "vitest"
import type { AppendRow } from "../../../src/postgres/events/append-sql.ts"
import { takeStatement } from "../../../src/postgres/events/lanes.ts"

const command = (stream: string, expected: number, commandId: string, vals = ""): { readonly row: AppendRow } => ({
  row: {
    topicId: 1,
    topic: "t",
    stream,
    partition: 0,
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
  const large = Array.from({ length: 3 }, (_, i) => command(`s${i}`, -1, String(i), "x".repeat(3 << 20)))
  expect(taken(...large)).toEqual([[0, 1], [2]])
})
