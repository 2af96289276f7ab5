// The statements of commits that differ in the number of their rows alone: few texts, because each is prepared on every connection.
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

it("commits that publish to one up to 64 partitions have seven statements, and each message is in its own", () => {
  const statements = Array.from({ length: 64 }, (_, i) => {
    const segments = Array.from({ length: i + 1 }, (_, partition) => ({
      topic: "c.out",
      partition,
      messages: 1,
      meta: `m${partition}`,
      vals: `v${partition}`
    }))
    const changes: Changes = { ...batchOf(claim, ["a"]), segments }
    return new CommitBuilder(counting()).build([{ claim, changes }])
  })
  expect(new Set(statements.map(({ text }) => text)).size).toBe(7)
  for (const [i, { parameters }] of statements.entries()) {
    const values = parameters.filter((value) => typeof value === "string" && /^v\d+$/.test(value))
    expect(values).toEqual(Array.from({ length: i + 1 }, (_, partition) => `v${partition}`))
  }
})
