// Formats rows, the status and topic plans as text.
import Table from "cli-table3"
import { dataFlag } from "../system/build-text.ts"
import type { Finding } from "../system/findings.ts"
import { durationText } from "../text/duration.ts"
import type { ProcessStatus, Status } from "../system/status.ts"
import type { TopicPlan } from "../log/topic-plan.ts"
import { statusRows } from "./status-rows.ts"
import { terminalText } from "./terminal-text.ts"
import { counted } from "../text/counted.ts"

/** A table of rows, with the values of each in the order of the columns. NULL is empty. */
export const tableOf = (columns: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<unknown>>): string => {
  const table = makeTable(columns)
  for (const row of rows) table.push(row.map(cellOf))
  return table.toString()
}
/** The text of a cell. The table would close colours that a value sets, and measure control characters, so it gets escapes in their place. */
const cellOf = (value: unknown): string => (value === null || value === undefined ? "" : terminalText(String(value)))
/** A number of rows in words. */
export const rowCount = (count: number): string => `(${count} row${count === 1 ? "" : "s"})`
const makeTable = (head: ReadonlyArray<string>) =>
  new Table({ head: head.map(cellOf), style: { head: [], border: [], compact: true } })

const ageText = (ms: number | null) => (ms === null ? "" : durationText(ms))
const processLine = ({ failing, host, pid, roles, running, seen_ms }: ProcessStatus) =>
  `process ${pid} on ${host}: ${roles.join(", ")}, ${running ? "running" : `last seen ${durationText(seen_ms)} ago`}` +
  failing
    .map(({ reason, since_ms, what }) => `\n  tries again for ${durationText(since_ms)}: ${what}: ${reason}`)
    .join("")
const findingLine = (label: string, { message, try: advice, what }: Finding) =>
  `${label}: ${what}: ${message}${advice === null ? "" : `\n  try: ${advice}`}`

/** The version of a partition's projection, and its build where that has another number. */
const versionText = ({ declared, version }: { readonly declared: number; readonly version: number }) =>
  declared === version ? `v${version}` : `v${declared} build ${version}`

/** A line for each projection that has several builds: `builds of orders: 1 previous, 2 live, 3 candidate`. */
const buildLines = (builds: Status["builds"]): ReadonlyArray<string> =>
  [...Map.groupBy(builds, ({ name }) => name)].flatMap(([name, list]) =>
    list.length === 1
      ? []
      : [
          `builds of ${name}: ${list.map(({ build, from, role, until }) => `${build} ${role}${from === undefined ? "" : ` from ${from}`}${until === undefined ? "" : ` until ${until}`}`).join(", ")}`
        ]
  )

/**
 * The status for people: what the partitions of each projection have processed, a line for each relay and process, the numbers of dead letters,
 * and what is wrong. `embeddedDir`: the state directory of an embedded database. `allPartitions`: a row for each partition.
 */
export const statusTable = (
  status: Status,
  {
    allPartitions = false,
    embeddedDir
  }: { readonly allPartitions?: boolean; readonly embeddedDir?: string | undefined } = {}
): string => {
  const {
    builds,
    dead_letters,
    follower_dead_letters,
    healthy,
    notices,
    parked_messages,
    paused,
    problems,
    processes,
    projections,
    relays,
    timers
  } = status
  const table = makeTable(["projection", "topic", "position", "end", "lag", "oldest", "epoch", "stream time", "state"])
  for (const one of statusRows(projections, allPartitions)) {
    const { end, epochs, halted, lag, mode, name, oldest_ms, partitions, position, removed, stream_time, topic } = one
    const time = stream_time === null ? "" : new Date(stream_time).toISOString()
    const where = `${topic}/${partitions}`
    table.push(
      [
        `${name} ${versionText(one)}`,
        where,
        position,
        end,
        lag,
        ageText(oldest_ms),
        epochs,
        time,
        removed
          ? mode === "live"
            ? "live, not in this code"
            : "removed"
          : (halted ?? (mode === "live" && paused.some(({ projection }) => projection === name) ? "paused" : mode))
      ].map(cellOf)
    )
  }
  return [
    table.toString(),
    ...buildLines(builds),
    ...relays.map(
      ({ halted, lag, oldest_ms, target }) =>
        `relay to ${target}: ${counted(lag, "message")} behind${oldest_ms === null ? "" : `, the oldest for ${durationText(oldest_ms)}`}` +
        (halted === null ? "" : `, halted: ${halted}`)
    ),
    ...processes.map(processLine),
    `dead letters of projections: ${dead_letters}${follower_dead_letters === 0 ? "" : ` (and ${follower_dead_letters} of builds that follow)`}, of relays: ${parked_messages}${dead_letters + parked_messages === 0 ? "" : `; millrace dlq list${dataFlag(embeddedDir)} shows them`}`,
    ...(timers.waiting + timers.due === 0
      ? []
      : [
          `timers and sent commands: ${timers.waiting} wait${timers.waiting === 1 ? "s" : ""}, ${timers.due} due, ${timers.failing} failing; millrace timers list${dataFlag(embeddedDir)} shows them`
        ]),
    ...problems.map((one) => findingLine("problem", one)),
    ...notices.map((one) => findingLine("note", one)),
    healthy ? "healthy" : "not healthy"
  ].join("\n")
}

const actionNames = { create: "create", change: "change", nothing: "nothing to do", refused: "refused" } as const
const changeOf = (from: number | string | undefined, to: number | string) =>
  from === undefined || from === to ? String(to) : `${from} → ${to}`

/** A plan for topics, for people: a line for each topic, with its settings and notes below it. */
export const planText = (log: string, plans: ReadonlyArray<TopicPlan>): string => {
  const width = Math.max(...plans.map(({ topic }) => topic.length))
  const lines = plans.flatMap(({ action, notes, partitions, settings, topic }) => [
    `${topic.padEnd(width)}  ${changeOf(partitions.from, partitions.to)} partition${partitions.to === 1 ? "" : "s"}: ${actionNames[action]}`,
    ...settings.map(({ from, name, to }) => `  ${name} ${changeOf(from, to)}`),
    ...notes.map((note) => `  ${note}`)
  ])
  return [`Topics on ${log}`, ...lines].join("\n")
}
