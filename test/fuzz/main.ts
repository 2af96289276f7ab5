// `npm run fuzz`: a million malformed requests, or --requests, over all routes. Exits with 1 if one of them shows a fault, or the server's event loop stalled.
//   npm run fuzz -- [--requests 1000000] [--seed N] [--from 0] [--stall-ms 100] [--at-once 40]
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { server } from "../support/postgres.ts"
import { seed } from "../support/random.ts"
import { fuzz } from "./fuzz.ts"

const { values } = parseArgs({
  options: {
    requests: { type: "string", default: "1000000" },
    seed: { type: "string", default: String(seed) },
    from: { type: "string", default: "0" },
    "stall-ms": { type: "string", default: "100" },
    "at-once": { type: "string", default: "40" }
  }
})
const options = {
  seed: Number(values.seed),
  from: Number(values.from),
  requests: Number(values.requests),
  atOnce: Number(values["at-once"]),
  onProgress: (answered: number) => {
    if (answered % 20_000 === 0) process.stderr.write(`${answered} requests\n`)
  }
}
process.stderr.write(`seed ${options.seed}: repeat with npm run fuzz -- --seed ${options.seed}\n`)
const report = await Effect.runPromise(Effect.scoped(Effect.flatMap(server, (url) => fuzz(url, options))))
const print = (text: string) => void process.stdout.write(`${text}\n`)
const { findings, stalls, ...figures } = report
print(
  JSON.stringify({
    ...figures,
    perSecond: Math.round(report.requests / report.seconds),
    stallMs: stalls.map(({ stallMs }) => stallMs)
  })
)
for (const { detail, problem, request } of findings) print(`${problem}\n  request ${request}: ${detail}`)
const tooLong = stalls.filter(({ stallMs }) => stallMs > Number(values["stall-ms"]))
for (const { during, stallMs } of tooLong)
  print(`the event loop stalled for ${stallMs} ms, during\n  ${during.join("\n  ")}`)
process.exitCode = findings.length + tooLong.length > 0 ? 1 : 0
