// The named points of the commands that rebuild, compare, promote and retire, at which their processes are killed.
import * as Points from "../harness/points.ts"

const { afterWriting, reached } = Points

/** The commands, by the step of a cycle. */
export type Command = "rebuild" | "diff" | "promote" | "retire"
/** A point of a command. */
export interface Point extends Points.Point {
  readonly command: Command
}
const point = (
  command: Command,
  name: string,
  file: string,
  find: string,
  replace: (call: string, find: string) => string
): Point => ({ command, name, often: 1, file, find, replace: replace(reached(name), find) })

const before = (indent: string) => (call: string, find: string) => `${indent}${call}\n${find}`
const after = (indent: string) => (call: string, find: string) => `${find}${indent}${call}\n`
const rebuild = "src/system/rebuild.ts"
const promote = "src/system/promote.ts"
const gate = "src/postgres/store/gate.ts"
const promotion = "src/postgres/store/promotion.ts"

/** In the order in which a cycle reaches them. */
export const points: ReadonlyArray<Point> = [
  point(
    "rebuild",
    "build created, not committed",
    rebuild,
    "      yield* startRebuild(tx, id, limits)\n",
    before("      ")
  ),
  point(
    "rebuild",
    "replay begins",
    rebuild,
    "  const started = performance.now()\n  const events = yield*",
    before("  ")
  ),
  point(
    "rebuild",
    "replay goes on",
    rebuild,
    "    const perSecond = speed.note(processed)\n",
    (call, find) => `    if (processed > 0) ${call}\n${find}`
  ),
  point(
    "rebuild",
    "replay is done, not noted",
    rebuild,
    '  yield* patient(setRebuildState(sql, id, "done"',
    before("  ")
  ),
  point(
    "diff",
    "snapshot taken",
    "src/system/diff.ts",
    "    if (positions.length > 0 && isEven(positions)) return id\n",
    (call) => `    if (positions.length > 0 && isEven(positions)) {\n      ${call}\n      return id\n    }\n`
  ),
  point(
    "diff",
    "compared",
    "src/system/diff.ts",
    "  const lookups = yield* lookupsOf(context, builds)\n",
    before("  ")
  ),
  point("promote", "checked", promote, '    yield* onStep("checked")\n', after("    ")),
  point(
    "promote",
    "gate changed, not committed",
    gate,
    "      yield* changeViews(tx, projection, plan)\n",
    after("      ")
  ),
  point("promote", "gate open", promote, '      yield* onStep("opened")\n', after("      ")),
  point(
    "promote",
    "frozen",
    "src/system/caught-up.ts",
    "          if (frozen === undefined) return\n",
    after("          ")
  ),
  point(
    "promote",
    "drained",
    promote,
    '    return Effect.andThen(onStep("drained"),',
    (call) => `    ${call}\n    return Effect.andThen(onStep("drained"),`
  ),
  point(
    "promote",
    "switch sent",
    promotion,
    '  query("make the follower the live build", async () => {\n',
    (call, find) => `${find}    ${afterWriting(call)}\n`
  ),
  point("promote", "switch answered", promotion, '    return row!.result === "done"', before("    ")),
  point("promote", "switched", promote, '  yield* onStep("switched")\n', after("  ")),
  point(
    "promote",
    "gate closed, not committed",
    gate,
    "      yield* changeViews(tx, projection, planViews(facts, { build }))\n",
    after("      ")
  ),
  point("promote", "gate closed", promote, '  yield* onStep("closed")\n', after("  ")),
  point(
    "retire",
    "build ended, not committed",
    "src/postgres/store/delete-build.ts",
    "  yield* dropTables(tx, name, number)\n",
    before("  ")
  ),
  point(
    "retire",
    "tables dropped, not committed",
    "src/postgres/store/delete-build.ts",
    "  yield* dropTables(tx, name, number)\n  for",
    (call) => `  yield* dropTables(tx, name, number)\n  ${call}\n  for`
  )
]
