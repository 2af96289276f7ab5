// Adds to a status the processes that have to refuse commands of an aggregate. Pure: no I/O.
import { isCommandsSubject } from "../monitor/ongoing-failures.ts"
import type { ProcessRow } from "../postgres/store/processes.ts"
import { type Finding, type Findings, isAlive } from "./findings.ts"

/** The findings with those about commands, one for each reason. */
export const withCommands = ({ notices, problems }: Findings, processes: ReadonlyArray<ProcessRow>): Findings => {
  const refused = processes
    .filter(isAlive)
    .flatMap(({ failing, host, pid }) =>
      failing
        .filter(({ what }) => isCommandsSubject(what))
        .map(({ reason, what }) => ({ what, reason, process: `process ${pid} on ${host}` }))
    )
  const found = [...Map.groupBy(refused, ({ reason, what }) => `${what} ${reason}`).values()].map((same): Finding => ({
    kind: "needs_a_person",
    what: same[0]!.what,
    message: `${same.map(({ process }) => process).join(", ")} ${same.length === 1 ? "refuses" : "refuse"} them: ${same[0]!.reason}`,
    try: "nothing as long as clients reach the processes that have the version; promote a newer one (millrace promote), or replace processes that have an older one"
  }))
  return { notices, problems: [...problems, ...found] }
}
