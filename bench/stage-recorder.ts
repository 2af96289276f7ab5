// Loaded into a process of Millrace by `--import`: notes when each event came, was decoded, handled and committed, in the file that STAGES_FILE names,
// a line for each event: its id, when the log stored it, and the other moments, in epoch milliseconds. For `stages.ts`.
import { appendFileSync } from "node:fs"
import { subscribe } from "node:diagnostics_channel"
import type { CommitStages, ReadStages } from "../src/log/stages.ts"

const file = process.env["STAGES_FILE"]
/** The topic of the events whose stages are noted. */
const topic = "events.raw.v1"
/** What was read of each partition and not committed yet. */
const reads = new Map<number, Array<ReadStages>>()
let lines: Array<string> = []

const epoch = (moment: number) => (performance.timeOrigin + moment).toFixed(3)
const flush = () => {
  if (file !== undefined && lines.length > 0) appendFileSync(file, lines.join(""))
  lines = []
}

subscribe("millrace.read", (message) => {
  const read = message as ReadStages
  if (read.topic !== topic) return
  const found = reads.get(read.partition)
  if (found === undefined) reads.set(read.partition, [read])
  else found.push(read)
})
subscribe("millrace.commit", (message) => {
  const { committed, handled, partition, records, taken, topic: of } = message as CommitStages
  if (of !== topic) return
  const found = reads.get(partition) ?? []
  for (const { appendedAt, position, value } of records) {
    while (found.length > 0 && found[0]!.next <= position) found.shift()
    const [read] = found
    const id = value === null ? undefined : /"event_id":"([^"]+)"/.exec(value)?.[1]
    if (read === undefined || id === undefined) continue
    const moments = [read.came, read.decoded, taken, handled, committed].map(epoch)
    lines.push(`${id} ${appendedAt} ${moments.join(" ")}\n`)
  }
})
setInterval(flush, 1_000).unref()
process.once("exit", flush)
