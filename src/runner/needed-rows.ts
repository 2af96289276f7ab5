// Reads the rows that the changes of events need, all at once.
import * as Effect from "effect/Effect"
import { keyText } from "../model/fields.ts"
import type { Projection } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import type { Entries, Row } from "../model/recorder.ts"
import type { Window } from "../model/window.ts"
import { neededRows, windowKey } from "./fold.ts"
import type { Origin } from "./prepared-changes.ts"
import type { Store } from "./store.ts"

/** An event, and the part of the log that its handler asked for. */
interface LoggedEvent {
  readonly origin: Origin
  readonly from: number
  readonly to: number
}

const keyOf = (target: Table.Any | Window.Any) => (target.kind === "table" ? target.primaryKey : windowKey(target))

/** What reads rows of a projection's tables and windows. */
export type RowReader = Pick<Store["Service"], "readRows">

/** The committed rows that the events need, by table or window and by the text of their key. Rows that do not exist are left out. */
export const readRows = Effect.fnUntraced(function* (
  store: RowReader,
  projection: Projection.Any,
  log: Entries,
  events: ReadonlyArray<LoggedEvent>
) {
  const needed = new Map<Table.Any | Window.Any, Map<string, Row>>()
  for (const { from, origin, to } of events) {
    for (const { key, target } of neededRows(log, from, to, origin)) {
      let keys = needed.get(target)
      if (keys === undefined) needed.set(target, (keys = new Map()))
      keys.set(keyText(keyOf(target), key), key)
    }
  }
  const rows = new Map<Table.Any | Window.Any, Map<string, Row>>()
  for (const [target, keys] of needed) {
    const found = yield* store.readRows(projection, target, [...keys.values()])
    rows.set(target, new Map(found.map((row) => [keyText(keyOf(target), row), row])))
  }
  return rows
})
