// Explanations of rows, in one line for each event, for tests.
import * as Effect from "effect/Effect"
import type { Application } from "../../src/model/application.ts"
import type { Projection } from "../../src/model/projection.ts"
import type { Table } from "../../src/model/read-model.ts"
import type { Window } from "../../src/model/window.ts"
import type { Row } from "../../src/model/recorder.ts"
import { readBuilds } from "../../src/postgres/store/builds.ts"
import { WatchedRow } from "../../src/runner/row-watch.ts"
import { explainRow, type ExplainRequest, type RowExplanation } from "../../src/system/explain.ts"
import { withServices } from "../../src/system/services.ts"
import type { Engine } from "./engine.ts"

/** Explains a row of the live build of the projection that writes the table. */
export const explained = Effect.fnUntraced(function* (
  { application, log, sql }: Engine,
  table: string,
  key: Row,
  more: Partial<ExplainRequest> = {}
) {
  const found = application.projections
    .flatMap(({ projection }) =>
      (projection.writes as Projection.Any["writes"]).map((target) => ({ projection, target }))
    )
    .find(({ target }) => target.name === table)!
  const build = (yield* readBuilds(sql, found.projection.name)).find(({ live }) => live)!
  const row = new WatchedRow(found.target as Table.Any | Window.Any, key)
  const request = {
    projection: found.projection,
    build,
    row,
    from: undefined,
    until: undefined,
    mostEvents: 100,
    ...more
  }
  const context = { application: application as Application.Any, sql, log }
  return yield* withServices(context.application, explainRow(context, request))
})
/** An event for each line: where it is, what became of it, what it asked for. */
export const linesOf = ({ events }: Pick<RowExplanation, "events">) =>
  events.map(({ calls, isCertain, outcome, position, retriedBy }) =>
    [
      `${position}${retriedBy === undefined ? "" : ` by ${retriedBy}`}`,
      outcome + (isCertain ? "" : "?"),
      calls.map(({ kind }) => kind).join("+")
    ].join(": ")
  )
