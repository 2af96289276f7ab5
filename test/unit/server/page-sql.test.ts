// The statement that reads a page of a view.
import { expect, test } from "vitest"
import type { DeclaredView, ViewColumn } from "../../../src/server/views/catalog.ts"
import { pageStatement } from "../../../src/server/views/page-sql.ts"

test("rows are ordered and limited before their JSON is made: PostgreSQL would make that of each row that it sorts", () => {
  const column = { name: "score", type: "integer" } as unknown as ViewColumn
  const view = { name: "alerts", key: ["id"], required: new Set<string>() } as unknown as DeclaredView
  const order = [{ column, isDescending: true, asText: false }]
  const { text } = pageStatement(
    view,
    [column],
    { filters: [], order, limit: 50, after: undefined, digest: "" },
    undefined
  )
  expect(text.replaceAll(/\s+/g, " ")).toMatch(
    /^select row_to_json\(s\)::text as row, .* from \( select t\.\* from public\."?alerts"? t order by t\."?score"? desc limit 51 \) t cross join lateral \(.*\) s order by t\."?score"? desc$/
  )
})
