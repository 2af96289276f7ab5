// Scenarios after a run that need a person: a database that is restored to an older state, and a log that lost records before they were processed.
// The application must halt in both.
import { setTimeout as sleep } from "node:timers/promises"
import { isHandled, partitionStates } from "./observe.ts"
import type { Run } from "./run.ts"

interface Status {
  readonly healthy: boolean
  readonly projections: ReadonlyArray<{
    readonly name: string
    readonly partition: number
    readonly halted: string | null
  }>
  readonly relays: ReadonlyArray<{ readonly target: string; readonly halted: string | null }>
}
/** The output of `millrace status`, which must not be healthy. */
const unhealthy = async ({ fleet }: Run): Promise<Status> => {
  const { code, errors, output } = await fleet.command("status", "--json")
  const status = JSON.parse(output.trim().split("\n").at(-1) ?? "null") as Status
  if (code !== 3 || status.healthy) throw new Error(`status ended with ${code}, and not unhealthy:\n${output}${errors}`)
  return status
}

const older = "signals_older"
/** Copies the application's database. No process may run. */
export const backUp = async (run: Run): Promise<void> => {
  const { beside } = run.services
  await disconnected(run.services)
  await beside(`create database ${older} template signals`)
}
/** Replaces the database by the copy. */
const restore = async (run: Run): Promise<void> => {
  const { beside } = run.services
  await disconnected(run.services)
  await beside("drop database signals with (force)")
  await beside(`alter database ${older} rename to signals`)
}
/** Ends all sessions of the database, including the harness's own, which reconnect. Asks from outside the database, since the question needs a session. */
const disconnected = async ({ beside }: Run["services"]) => {
  const end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'signals'"
  for (let left = 200; (await beside(end)).length > 0; left--) {
    if (left === 0) throw new Error("the sessions of the database did not end within 10 s")
    await sleep(50)
  }
}

/** A process must refuse a database that was copied, until a person says that it replaces the original. */
const adopt = async (run: Run): Promise<void> => {
  const { differences, fleet, services } = run
  const refused = ["projections", "relay"].map((role) => fleet.start(role))
  // they end by themselves
  for (const worker of refused) worker.doomed = true
  await run.until("refusal of a copied database", () => refused.every(({ exit }) => exit !== undefined))
  for (const { exit, output, role } of refused)
    if (exit === 0 || !output.includes("millrace migrate --adopt"))
      differences.add("wrong", `a process with the role ${role} on a copied database ended with ${exit}: ${output}`)
  const states = async () => JSON.stringify(await partitionStates(services.sql))
  const before = await states()
  const { code, errors, output } = await fleet.command("migrate", "--adopt")
  if (code !== 0) throw new Error(`migrate --adopt ended with ${code}: ${output}${errors}`)
  differences.same("the state of the partitions after an adoption", await states(), before)
}

/**
 * Processes and relays more, then restores the older database. Projections must process the rest of the log again. The relay must not publish
 * what Kafka has already: it halts with the reason, and the outputs stay as they were.
 */
export const restoredDatabase = async (run: Run): Promise<void> => {
  const { differences, feeder, fleet, services } = run
  const begin = () => [fleet.start("projections"), fleet.start("relay")]
  begin()
  await feeder.feed(1_500)
  await feeder.mark("restored")
  await run.drain()
  await fleet.stop()
  const ends = await feeder.ends()
  await restore(run)
  await adopt(run)
  run.watch.forget()
  begin()
  await run.until("processing of what the restored database lacks", () => isHandled(services.sql, ends))
  await run.until("the relay to halt on a restored database", async () =>
    (await partitionStates(services.sql)).some(({ relayHalted }) => relayHalted !== null)
  )
  // more events, which it must not relay
  await feeder.feed(500)
  await feeder.mark("after")
  const more = await feeder.ends()
  await run.until("processing on a restored database", () => isHandled(services.sql, more))
  const reason = (await unhealthy(run)).relays.find(({ halted }) => halted !== null)?.halted ?? ""
  if (!/restored/.test(reason)) differences.add("wrong", `the relay of a restored database says: ${reason}`)
  await fleet.stop()
  await run.compareOutputs("restored", "after")
  run.note("database restored to an older state")
}

/** Deletes records that were not processed, as retention does: the partition must halt with the reason, and the others must go on. */
export const cutLog = async (run: Run): Promise<void> => {
  const { differences, feeder, fleet, services } = run
  await fleet.stop()
  await feeder.feed(600)
  const before = await partitionStates(services.sql)
  const ends = await feeder.ends()
  // the partition with the most unprocessed records
  const { end, partition } = ends.toSorted(
    (a, b) => b.end - before[b.partition]!.position - (a.end - before[a.partition]!.position)
  )[0]!
  await feeder.cut(partition, end - 2)
  fleet.start("projections")
  const others = ends.filter((one) => one.partition !== partition)
  await run.until("processing of the other partitions", () => isHandled(services.sql, others))
  await run.until("the partition with deleted records to halt", async () => {
    return (await partitionStates(services.sql))[partition]!.halted !== null
  })
  const now = (await partitionStates(services.sql))[partition]!
  if (now.position !== before[partition]!.position)
    differences.add("lost", `partition ${partition} continued at ${now.position}, behind the deleted records`)
  const reason =
    (await unhealthy(run)).projections.find((one) => one.name === "signals" && one.partition === partition)?.halted ??
    ""
  if (!reason.includes(String(now.position)) || !reason.includes(String(end - 2)))
    differences.add("wrong", `the partition whose records before ${end - 2} were deleted says: ${reason}`)
  run.note("log cut off before a consumer")
  await fleet.stop()
}
