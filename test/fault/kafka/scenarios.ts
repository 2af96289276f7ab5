// What needs a person, after a run: a database restored to an older state, and a log cut off before a consumer. Nothing is guessed: they halt.
import { setTimeout as sleep } from "node:timers/promises"
import { isHandled, partitionStates } from "./observe.ts"
import type { Run } from "./run.ts"

interface Status {
  readonly healthy: boolean
  readonly projections: ReadonlyArray<{ readonly partition: number; readonly halted: string | null }>
  readonly relays: ReadonlyArray<{ readonly target: string; readonly halted: string | null }>
}
/** What `millrace status` says; it must not be healthy. */
const unhealthy = async ({ fleet }: Run): Promise<Status> => {
  const { code, errors, output } = await fleet.command("status", "--json")
  const status = JSON.parse(output.trim().split("\n").at(-1) ?? "null") as Status
  if (code !== 3 || status.healthy) throw new Error(`status ended with ${code}, and not unhealthy:\n${output}${errors}`)
  return status
}

const older = "signals_older"
/** A copy of the application's database, as of now. Nothing may run. */
export const backUp = async (run: Run): Promise<void> => {
  const { beside } = run.services
  await disconnected(run.services)
  await beside(`create database ${older} template signals`)
}
/** Puts the copy in the place of the database. */
const restore = async (run: Run): Promise<void> => {
  const { beside } = run.services
  await disconnected(run.services)
  await beside("drop database signals with (force)")
  await beside(`alter database ${older} rename to signals`)
}
/** All sessions of the database end, the harness's own too, which are opened anew by whoever asks next. Asked for beside it: who asks has one. */
const disconnected = async ({ beside }: Run["services"]) => {
  const end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'signals'"
  for (let left = 200; (await beside(end)).length > 0; left--) {
    if (left === 0) throw new Error("sessions of the database do not end")
    await sleep(50)
  }
}

/**
 * More is handled and relayed, then the database is that of before. Projections handle the rest of the log again; the relay must not
 * publish what Kafka has: it halts, and says why. The outputs stay what they were.
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
  run.watch.forget()
  begin()
  await run.until("handling of what the restored database lacks", () => isHandled(services.sql, ends))
  await run.until("halt of the relay of a restored database", async () =>
    (await partitionStates(services.sql)).some(({ relayHalted }) => relayHalted !== null)
  )
  // another round, in which it may not go on
  await feeder.feed(500)
  await feeder.mark("after")
  const more = await feeder.ends()
  await run.until("handling on a restored database", () => isHandled(services.sql, more))
  const reason = (await unhealthy(run)).relays.find(({ halted }) => halted !== null)?.halted ?? ""
  if (!/restored/.test(reason)) differences.add("wrong", `the relay of a restored database says: ${reason}`)
  await fleet.stop()
  await run.compareOutputs("restored", "after")
  run.note("database restored to an older state")
}

/** Retention takes records that were not handled: the partition halts, and says why; the others flow. */
export const cutLog = async (run: Run): Promise<void> => {
  const { differences, feeder, fleet, services } = run
  await fleet.stop()
  await feeder.feed(600)
  const before = await partitionStates(services.sql)
  const ends = await feeder.ends()
  // the one that has most to lose
  const { end, partition } = ends.toSorted(
    (a, b) => b.end - before[b.partition]!.position - (a.end - before[a.partition]!.position)
  )[0]!
  await feeder.cut(partition, end - 2)
  fleet.start("projections")
  const others = ends.filter((one) => one.partition !== partition)
  await run.until("handling beside a partition that was cut off", () => isHandled(services.sql, others))
  await run.until("halt of a partition that was cut off", async () => {
    return (await partitionStates(services.sql))[partition]!.halted !== null
  })
  const now = (await partitionStates(services.sql))[partition]!
  if (now.position !== before[partition]!.position)
    differences.add("lost", `partition ${partition} went on at ${now.position}, past what retention took`)
  const reason = (await unhealthy(run)).projections.find((one) => one.partition === partition)?.halted ?? ""
  if (!reason.includes(String(now.position)) || !reason.includes(String(end - 2)))
    differences.add("wrong", `the partition that was cut off at ${end - 2} says: ${reason}`)
  run.note("log cut off before a consumer")
  await fleet.stop()
}
