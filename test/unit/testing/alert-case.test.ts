// The reference application's cases: alerts open them, people work on them, and one that nobody takes escalates.
import { describe, expect, test } from "vitest"
import {
  AlertCase,
  CaseAcknowledged,
  CaseOpened,
  CaseResolved,
  CaseReopened,
  escalation,
  openCases
} from "../../../aggregates/alert-case.ts"
import { AggregateTest, EventHistory, ProjectionTest } from "../../../src/testing/testing.ts"

const opened = (case_id: string) => CaseOpened.make({ case_id, at: 1_000, entity_id: "N1", score: 7 })
const alert = { entity_id: "N1", score: 7, threshold: 5, segment: "jet", occurred_at: 1_000 }

test("each alert opens a case, whose id is the alert's", () => {
  ProjectionTest.make(openCases)
    .when([
      { alert_id: "a", ...alert },
      { alert_id: "b", ...alert }
    ])
    .then({
      sent: [
        { aggregate: "alert-case", id: "a", command: { type: "open", at: 1_000, entity_id: "N1", score: 7 } },
        { id: "b" }
      ]
    })
})
test("a case escalates 15 minutes after it was opened or reopened, unless a person takes or resolves it", () => {
  const spec = ProjectionTest.make(escalation).when(["a", "b", "c"].map(opened))
  const taken = spec.when([
    CaseAcknowledged.make({ case_id: "a", at: 2_000, by: "ann" }),
    CaseResolved.make({ case_id: "b", at: 2_000, resolution: "fixed" })
  ])
  taken.idle("14 minutes").then({ sent: [] })
  const escalated = { aggregate: "alert-case", id: "c", command: { type: "expire" } }
  taken.idle("15 minutes").then({ sent: [escalated], timers: [] })
  taken
    .when([CaseReopened.make({ case_id: "b", at: 3_000, by: "ann" })])
    .idle("15 minutes")
    .then({ sent: [{ id: "c" }, { id: "b" }] })
})
test("stored cases can be read", () =>
  EventHistory.check(AlertCase, new URL("../../../aggregates/alert-case.history.ndjson", import.meta.url)))
describe("decisions:", () => {
  const spec = AggregateTest.make(AlertCase).given([opened("a")])
  const of = { case_id: "a", at: 2_000 }
  test("a case that was taken is not escalated by the clock, and is by a person", () => {
    const taken = spec.when({ type: "acknowledge", by: "ann", ...of })
    taken.when({ type: "expire", ...of }).then([])
    taken.when({ type: "escalate", ...of }).then([{ type: "case.escalated", level: 1, ...of }])
    spec.when({ type: "expire", ...of }).then([{ type: "case.escalated", level: 1, ...of }])
  })
  test("a case is assigned to others, and reopened only when it is resolved", () => {
    const assigned = spec.when({ type: "assign", to: "bob", ...of })
    assigned.then([{ type: "case.assigned", to: "bob", ...of }])
    assigned.when({ type: "assign", to: "bob", ...of }).then([])
    assigned.when({ type: "reopen", by: "ann", ...of }).thenRejected("CaseNotResolved")
    const resolved = spec.when({ type: "resolve", resolution: "fixed", ...of })
    resolved.when({ type: "assign", to: "bob", ...of }).thenRejected("CaseClosed")
    resolved.when({ type: "reopen", by: "ann", ...of }).then([{ type: "case.reopened", by: "ann", ...of }])
    expect(AlertCase.types).toHaveLength(6)
  })
})
