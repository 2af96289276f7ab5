// What a concern of the harness is, beside the ledgers: what its writers ask for, and what must hold afterwards.
import { setTimeout as sleep } from "node:timers/promises"
import type postgres from "postgres"
import type { Random } from "../../support/random.ts"
import { patiently } from "../harness/postgres.ts"
import type { Differences } from "../harness/differences.ts"
import type { Reply, SideRequest } from "./messages.ts"

/** What a concern needs of a run. */
export interface ConcernRun {
  readonly differences: Differences
  readonly services: { readonly name: string; readonly sql: postgres.Sql }
  /** Sends a request to a process, and to another one while it has no answer. */
  readonly settle: (request: SideRequest, random: Random) => Promise<Reply>
  readonly until: (what: string, ask: () => Promise<boolean>) => Promise<void>
}
/** One concern of a phase. */
export interface Concern {
  /** Whether it needs worker processes. */
  readonly hasWorkers: boolean
  /** One step of a writer. `id` is unique. */
  readonly step: (id: string, random: Random) => Promise<void>
  /** Waits for what must still happen, then compares. No fault happens meanwhile. */
  readonly compare: () => Promise<void>
}
/** An event of an aggregate in the log. */
export interface StoredEvent {
  readonly key: string
  readonly event_id: string
  readonly value: string
}
/** The events of an aggregate, by partition and position. */
export const eventsOf = ({ services: { name, sql } }: ConcernRun, aggregate: string): Promise<Array<StoredEvent>> =>
  patiently(
    async () =>
      await sql<Array<StoredEvent>>`select key, event_id, value from millrace.log_record
      where topic = ${`${name}-${aggregate}`} order by partition, position`
  )
/** The command of an event. */
export const commandOf = (eventId: string): string => eventId.slice(0, eventId.lastIndexOf("/"))

/** Sends a request once or twice at the same time, and sometimes again later, as a client does that has lost a reply. Returns all answers. */
export const sendRepeatedly = async (run: ConcernRun, request: SideRequest, random: Random): Promise<Array<Reply>> => {
  const times = random.chance(0.2) ? 2 : 1
  const replies = await Promise.all(Array.from({ length: times }, () => run.settle(request, random)))
  if (!random.chance(0.1)) return replies
  await sleep(random.int(5, 50))
  return [...replies, await run.settle(request, random)]
}
/** Notes answers of a command that failed, or that executed it with different results. Returns whether it was executed. */
export const noteExecuted = ({ differences }: ConcernRun, id: string, replies: ReadonlyArray<Reply>): boolean => {
  const executed = replies.filter(({ kind }) => kind === "executed")
  const places = new Set(executed.map((one) => (one.kind === "executed" ? `${one.version} ${one.position}` : "")))
  if (places.size > 1) differences.add("wrong", `${id} was answered ${[...places].join(", then ")}`)
  if (executed.filter((one) => one.kind === "executed" && !one.repeated).length > 1)
    differences.add("doubled", `${id} was executed twice`)
  for (const one of replies)
    if (one.kind === "failed" || one.kind === "again") differences.add("wrong", `${id}: ${one.reason}`)
  return executed.length > 0
}
