import { execute } from "./run.ts"
import { planOf } from "./plan.ts"
const seed = Number(process.argv[2] ?? 1)
const counts = JSON.parse(process.argv[3] ?? "{}")
const report = await execute({
  seed,
  plan: planOf(seed, counts),
  events: Number(process.argv[4] ?? 5000),
  projectionsOnly: process.argv[5] === "p",
  say: (l) => console.error((performance.now() / 1000).toFixed(1), l)
})
console.log(report.hang?.slice(0, 3000))
console.log(JSON.stringify({ ...report, hang: report.hang !== undefined }, null, 1))
