// The application that `npm run bench -- aggregates --http` starts: the alert case with its rows written inline, and the same rows written behind it.
import { Schema } from "effect"
import { AlertCase, caseStatus } from "../aggregates/alert-case.ts"
import { Application, Projection, ReadModel } from "../src/index.ts"

const laterCases = ReadModel.table("later_cases", {
  columns: { case_id: Schema.String, events: Schema.Int },
  primaryKey: ["case_id"]
})
const laterStatus = Projection.make({
  name: "later_status",
  version: 1,
  source: AlertCase,
  writes: [laterCases],
  handle: ({ case_id }, out) =>
    out.modify(laterCases, { case_id }, (row) => ({ case_id, events: (row?.events ?? 0) + 1 }))
})

export default Application.make({
  name: "bench",
  projections: [Projection.inline(caseStatus), Projection.async(laterStatus)]
})
