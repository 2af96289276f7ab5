// Measures recovery from kill -9, beside the peer: events flow at a fixed rate, the application is killed and started again at once, until the first
// alert of an event that was produced after the kill is visible. Both in turn, on one Kafka and PostgreSQL.
import { parseArgs } from "node:util"
import { inTurn } from "./rounds.ts"
import { chosenSides, measure, number, shapeOf, type Stack, verify, withStack } from "./side.ts"

const { values } = parseArgs({
  options: {
    rate: { type: "string", default: "2000" },
    seed: { type: "string", default: "1" },
    runs: { type: "string", default: "1" },
    only: { type: "string" },
    processes: { type: "string", default: "projections,relay" },
    json: { type: "boolean", default: false }
  }
})
const shape = shapeOf(values.processes, undefined)

const compare = async (stack: Stack) => {
  const { figures, runs } = await inTurn(chosenSides(values.only), Number(values.runs), async (side) => {
    const found = await measure(stack, side, "recovery", shape, ["--rate", values.rate, "--seed", values.seed])
    const workload = ["--events", found["events"] ?? "", "--events-per-second-of-event-time", values.rate]
    return {
      secondsToFirstNewRow: number(found, "seconds_to_first_new_row"),
      secondsToAllAlerts: number(found, "seconds_to_all_alerts"),
      secondsToAllRows: number(found, "seconds_to_all_rows"),
      missing: number(found, "alerts_not_seen"),
      verified: await verify(stack, [...workload, "--seed", values.seed, "--sql-only"])
    }
  })
  const first = Object.entries(runs).map(([side, all]) => [side, all.map((run) => run.secondsToFirstNewRow)])
  return {
    rate: Number(values.rate),
    processes: shape.processes,
    ...figures,
    ...(Number(values.runs) > 1 && { firstNewRow: Object.fromEntries(first) })
  }
}

const result = await withStack(compare)
process.stdout.write(`${JSON.stringify(result, null, values.json ? undefined : 2)}\n`)
if (JSON.stringify(result).includes('"verified":false')) process.exitCode = 1
