// The statement of a commit that sends commands: one text for any number of them.
import { expect, it } from "vitest"
import { CommitBuilder } from "../../../../src/postgres/store/commit.ts"
import type { PendingCommand } from "../../../../src/runner/commands.ts"
import type { Changes, Claim } from "../../../../src/runner/store.ts"
import { batchOf, counting } from "../../../fault/commits.ts"

const claim = {
  projection: "counting",
  version: 1,
  topic: "c.events",
  partition: 0,
  incarnation: "11111111-1111-1111-1111-111111111111",
  commitNo: 1,
  position: 0,
  seenChunk: 0,
  seenFill: 0
} as Claim
/** Commands, of which every other one is a timer's. */
const sent = (count: number): ReadonlyArray<PendingCommand> =>
  Array.from({ length: count }, (_, i) => ({
    id: `22222222-2222-2222-2222-${String(i).padStart(12, "0")}`,
    key: `k"${i}`,
    timer: i % 2 === 0 ? undefined : { name: "later", at: undefined, afterMs: 5 },
    aggregate: "case",
    stream: `s${i}`,
    command: `{"type":"open","by":"\\"${i}"}`,
    position: i,
    number: 0,
    tenant: undefined,
    traceparent: undefined,
    correlationId: "c",
    causationId: "e"
  }))
const statementOf = (count: number) => {
  const cancelled = Array.from({ length: count }, (_, i) => ({ key: `c${i}`, name: "later" }))
  const changes: Changes = { ...batchOf(claim, ["a"]), commands: { pending: sent(count), cancelled } }
  return new CommitBuilder(counting()).build([{ claim, changes }])
}

it("a commit with many commands has the statement of one with few, however many there are", () => {
  const few = statementOf(4)
  // more than a statement may have parameters, if each value were one
  const many = statementOf(4_000)
  expect(many.text).toBe(few.text)
  expect(many.parameters).toHaveLength(few.parameters.length)
})
