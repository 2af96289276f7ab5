// Measures recovery from kill -9, beside the peer: events flow at a fixed rate, the application is killed and started again at once, until the first
// alert of an event that was produced after the kill is visible. Both in turn, on one Kafka and PostgreSQL.
import { parseArgs } from "node:util"
import { measure, number, shapeOf, type Side, sides, type Stack, verify, withStack } from "./side.ts"

const { values } = parseArgs({
  options: {
    rate: { type: "string", default: "2000" },
    seed: { type: "string", default: "1" },
    only: { type: "string" },
    processes: { type: "string", default: "projections,relay" },
    json: { type: "boolean", default: false }
  }
})
const shape = shapeOf(values.processes, undefined)

const compare = async (stack: Stack) => {
  const found: Partial<Record<Side, object>> = {}
  for (const side of sides.filter((side) => values.only === undefined || values.only === side)) {
    const figures = await measure(stack, side, "recovery", shape, ["--rate", values.rate, "--seed", values.seed])
    const workload = ["--events", figures["events"] ?? "", "--events-per-second-of-event-time", values.rate]
    found[side] = {
      secondsToFirstNewRow: number(figures, "seconds_to_first_new_row"),
      secondsToAllAlerts: number(figures, "seconds_to_all_alerts"),
      secondsToAllRows: number(figures, "seconds_to_all_rows"),
      missing: number(figures, "alerts_not_seen"),
      verified: await verify(stack, [...workload, "--seed", values.seed, "--sql-only"])
    }
  }
  return { rate: Number(values.rate), processes: shape.processes, ...found }
}

const result = await withStack(compare)
process.stdout.write(`${JSON.stringify(result, null, values.json ? undefined : 2)}\n`)
if (JSON.stringify(result).includes('"verified":false')) process.exitCode = 1
